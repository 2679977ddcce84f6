# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: modules
short_description: Install or delete modules of a domain, one or all in one call
version_added: 0.2.0
description:
  - Each module's role has a C(module.yml) that says what differs (chart, needs, Secrets, values); this turns a list of
    modules into releases and hands them to the engine of M(hxmlops.mlops.helm_release) in one call.
  - C(hxmlops_recover), C(hxmlops_drift) and C(hxmlops_helm_binary_path) are that module's C(recover), C(drift) and
    C(binary_path); C(hxmlops_image_registry) becomes C(global.imageRegistry) of every chart.
extends_documentation_fragment:
  - hxmlops.mlops.engine
  - hxmlops.mlops.engine.modules
options:
  state:
    description: For all of them, in the place of their own C(state).
    type: str
    choices: [present, absent]
  values_file:
    description: Values for the one that O(only) names.
    type: path
  delete_data:
    description: With O(state=absent), delete their claims and Secrets as well.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: All modules of the domain
  hxmlops.mlops.modules:

- name: Two modules, the second with values of its own
  hxmlops.mlops.modules:
    modules:
      - module: postgres
      - module: pgadmin
        values: {email: ana@example.net}
"""

RETURN = r"""
releases:
  description: As M(hxmlops.mlops.helm_release) returns them.
  type: list
  elements: dict
  returned: always
"""
