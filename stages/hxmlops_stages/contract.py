"""Checks a contract and answers its digest: `python -m hxmlops_stages.contract CONTRACT.json`.

Prints `{"contract_digest": "sha256:..."}`; exit code 3 and one line on a contract that does not hold together.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hxmlops_evidence.digests import digest_of
from hxmlops_recipe.contract import Contract

BAD_INPUT = 3


def main(arguments: list[str]) -> int:
    """Check the contract in a JSON file; the exit code of the program."""
    contract = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        Contract.from_mapping(contract)
    except ValueError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    print(json.dumps({"contract_digest": digest_of(contract)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
