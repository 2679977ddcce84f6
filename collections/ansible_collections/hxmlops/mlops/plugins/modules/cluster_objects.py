# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: cluster_objects
short_description: Make what a domain's modules need of the whole cluster, once, as an admin
version_added: 0.2.0
description:
  - Namespaces with their Pod Security level, custom resource definitions and cluster roles of the modules (their
    C(cluster/*.yml)), and the rights of those who deploy. Objects are applied by the server; nothing is deleted.
extends_documentation_fragment:
  - hxmlops.mlops.engine.modules
attributes:
  diff_mode:
    description: Each object before and after.
    support: full
options:
  meters:
    description: Modules that measure energy, beside the domain's own list.
    type: list
    elements: str
    default: []
  deployers:
    description:
      - Who may deploy, each with C(name), C(kind) (User, Group or ServiceAccount) and, for the last, C(namespace).
      - They get the ClusterRole C(admin) inside the domain's namespaces.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Prepare the cluster
  hxmlops.mlops.cluster_objects:
    meters: [kepler]
    deployers:
      - {kind: ServiceAccount, name: awx, namespace: automation}
"""

RETURN = r"""
objects:
  description: What was made or changed, as kind and name.
  type: list
  elements: str
  returned: success
"""
