# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: show
short_description: Show a text file that a stage wrote
version_added: 0.1.0
description: Prints the file as it is.
extends_documentation_fragment: hxmlops.mlops.domain
options:
  path:
    description: The file. One that does not exist shows nothing.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Show the table
  hxmlops.mlops.show:
    path: "{{ report.output }}/report.txt"
"""

RETURN = r"""
"""
