# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: domain_info
short_description: What a Kubernetes domain is like, and what keeps modules from being installed in it
version_added: 0.1.0
description:
  - Asks a domain's API server, side by side, for all that matters before modules are installed, and changes nothing.
  - Rights of a namespace are enough. What the user may not read is null in the result, and no failure.
  - Everything known is returned, also when the task fails; of a server that cannot be reached, that is the one finding.
  - Whether a node has RAPL is known by its label C(hxmlops.io/rapl), V(true) or V(false), which an admin or a
    NodeFeatureRule of Node Feature Discovery sets; no component of Kubernetes tells it by itself.
extends_documentation_fragment: hxmlops.mlops.cluster
attributes:
  diff_mode:
    description: Nothing is changed.
    support: none
options:
  namespace:
    description: Namespace of the domain; that of the context by default.
    type: str
  modules:
    description:
      - Names of the modules that are to be installed; the rights they take are looked for.
      - By default those of the domain, in C(hxmlops_modules) or by its group in the inventory.
    type: list
    elements: str
  binary_path:
    description: The helm program; by default the one in E(PATH).
    type: path
  fail:
    description: Whether the task fails on findings that are errors.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: What the domain is like
  hxmlops.mlops.domain_info:
    kubeconfig: "{{ hxmlops_kubeconfig }}"
    context: "{{ hxmlops_context }}"
    namespace: "{{ hxmlops_namespace }}"
    modules: [postgres, minio, kubeflow_pipelines]
  register: domain

- name: Who it is that installs there
  ansible.builtin.debug:
    msg: "{{ domain.user }} on Kubernetes {{ domain.version }}"
"""

RETURN = r"""
reachable:
  description: Whether the API server answers and knows the user. If not, only this, C(server) and C(findings) are set.
  type: bool
  returned: always
server:
  description: Address of the API server.
  type: str
  returned: always
version:
  description: Version of the API server.
  type: str
  returned: always
  sample: v1.36.3
user:
  description: Who the API server takes us for.
  type: str
  returned: always
namespaces:
  description:
    - The domain's namespace, and that of its meters where one of the modules is one.
    - C(name), C(exists), C(pod_security) (the level it enforces, null for none), and C(suits), whether the modules are
      made for that level; null is unknown.
  type: list
  elements: dict
  returned: always
missing_rights:
  description:
    - Rights that the user lacks, as C(namespace), C(group), C(resource), C(verb), and C(needed), which is false for a
      right that only helps to explain failures. Null where the server does not tell.
  type: list
  elements: dict
  returned: always
storage_class:
  description: Name of the default StorageClass; null where there is none or the user may not list them.
  type: str
  returned: always
nodes:
  description: The nodes' C(name), C(version), C(ready) and C(rapl); null where the user may not list them.
  type: list
  elements: dict
  returned: always
  sample: [{name: worker-1, version: v1.36.3, ready: true, rapl: null}]
helm:
  description: C(path) and C(version) of helm on the controller; null where it is missing or too old.
  type: dict
  returned: always
clock_skew_s:
  description: Seconds that the API server's clock is ahead of the controller's, to half a second.
  type: float
  returned: always
certificate_days:
  description: Days until the client certificate ends; null where there is none.
  type: int
  returned: always
findings:
  description:
    - What stands in the way (C(severity=error)) or may do so (C(severity=warning)).
    - C(what) is one of connection, namespace, pod_security, kinds, rights, storage_class, nodes, rapl, helm, clock,
      certificate; C(text) is one sentence with the remedy.
  type: list
  elements: dict
  returned: always
row:
  description: Label and text of each cell of a table for people; C(?) is unknown.
  type: list
  elements: list
  returned: always
  sample: [[server, v1.36.3], [user, ana], [rights, ok]]
"""
