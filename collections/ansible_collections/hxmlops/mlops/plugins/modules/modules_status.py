# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: modules_status
short_description: How the modules of a domain are
version_added: 0.2.0
description: Shows a line for each module's release, with why it is not ready, and returns what is known of it.
extends_documentation_fragment:
  - hxmlops.mlops.engine.modules
attributes:
  diff_mode:
    description: It changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: How is PostgreSQL?
  hxmlops.mlops.modules_status:
    only: [postgres]
"""

RETURN = r"""
releases:
  description: As M(hxmlops.mlops.helm_release_info) returns them.
  type: list
  elements: dict
  returned: success
"""
