# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
# ruff: noqa: N999 # the original's name
"""The command line of HX-MLOps: what it does, a line of ansible-playbook can do, and ``--show`` prints that line."""

__version__ = "0.2.0"
