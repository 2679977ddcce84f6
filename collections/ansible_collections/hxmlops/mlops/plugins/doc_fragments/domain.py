# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What the documentation of every Ansible module here has in common."""

from __future__ import annotations


class ModuleDocFragment:
    """The attributes of an action on a domain's records."""

    DOCUMENTATION = r"""
author: HX-MLOps contributors (@hxmlops)
attributes:
  check_mode:
    description: Says what would happen; writes nothing.
    support: full
  diff_mode:
    description: Records and services have no text to compare.
    support: none
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: full
  action:
    description: Runs on the controller, as every domain is reached from there.
    support: full
"""

    STATE = r"""
options:
  state:
    description: Folder of the domain.
    type: path
    required: true
  python:
    description: A Python with the project's packages.
    type: path
    required: true
"""
