# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: helm_release_info
short_description: Helm releases of a namespace as they are
version_added: 0.2.0
description:
  - Status, revisions, values, notes and objects with their readiness, from the release records and the live objects.
  - Needs no helm.
extends_documentation_fragment:
  - hxmlops.mlops.cluster
attributes:
  diff_mode:
    description: It changes nothing.
    support: none
options:
  name:
    description: One release; by default all of the namespace.
    type: str
  namespace:
    description: The namespace; by default that of the context.
    type: str
"""

EXAMPLES = r"""
- name: How is the database?
  hxmlops.mlops.helm_release_info:
    context: mno-staging
    namespace: churn
    name: database
  register: database
"""

RETURN = r"""
releases:
  description: The releases; one that was asked for by name and is not there has C(status=absent).
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Its name.
      type: str
    status:
      description: As Helm has it (deployed, failed, pending-upgrade, ...), or absent.
      type: str
    revision:
      description: Its newest revision.
      type: int
    revisions:
      description: All revisions that are kept, with their status and time.
      type: list
      elements: dict
    chart:
      description: Name and version of its chart.
      type: str
    app_version:
      description: Version of the software.
      type: str
    values:
      description: Values given to it; what looks like a secret is masked.
      type: dict
    notes:
      description: The chart's notes.
      type: str
    ready:
      description: Whether it is deployed and all its workloads are ready.
      type: bool
    reason:
      description: Why it is not ready, in the words of the cluster.
      type: str
    objects:
      description: Its objects, each with C(kind), C(name), C(ready), C(state).
      type: list
      elements: dict
"""
