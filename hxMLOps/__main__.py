# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
# ruff: noqa: N999 # the original's name
"""``python -m hxMLOps``: see ``--help``."""

import sys

try:
    from hxMLOps.cli import main
except ModuleNotFoundError as error:
    print(f"hxMLOps: {error.name} is not installed here: use .venv/bin/python of the project", file=sys.stderr)
    sys.exit(3)

if __name__ == "__main__":
    sys.exit(main())
