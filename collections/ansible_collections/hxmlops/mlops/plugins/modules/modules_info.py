# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: modules_info
short_description: What modules are, with their values and images
version_added: 0.2.0
description: Says it from the roles' data and charts, without a cluster.
extends_documentation_fragment:
  - hxmlops.mlops.engine.modules
attributes:
  diff_mode:
    description: It changes nothing.
    support: none
options:
  show:
    description:
      - V(pages) shows what each module is and the values it takes; V(images) every image that it makes a cluster pull,
        one a line, for which helm renders the charts.
    type: str
    choices: [nothing, pages, images]
    default: nothing
"""

EXAMPLES = r"""
- name: What is to be mirrored?
  hxmlops.mlops.modules_info:
    show: images
"""

RETURN = r"""
modules:
  description: >-
    The modules, each with C(module), C(title), C(summary), C(version), C(release), C(namespace), C(needs), C(ports),
    C(secrets) (names and keys), C(chart), C(values) (text of its values file) and, where asked for, C(images).
  type: list
  elements: dict
  returned: success
"""
