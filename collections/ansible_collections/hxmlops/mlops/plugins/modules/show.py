# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: show
short_description: Show a text, or a text file that a stage wrote
version_added: 0.1.0
description: Prints it as it is, without the quoting of a debug task.
extends_documentation_fragment: hxmlops.mlops.domain
options:
  path:
    description: The file. One that does not exist shows nothing.
    type: path
  text:
    description: The text, in the place of a file.
    type: str
"""

EXAMPLES = r"""
- name: Show the table
  hxmlops.mlops.show:
    path: "{{ report.output }}/report.txt"
"""

RETURN = r"""
"""
