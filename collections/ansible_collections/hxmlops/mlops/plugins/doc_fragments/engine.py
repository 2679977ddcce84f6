# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What the documentation of the Ansible modules over the Helm engine has in common."""

from __future__ import annotations


class ModuleDocFragment:
    """How releases are worked on, and what is returned of each."""

    DOCUMENTATION = r"""
attributes:
  diff_mode:
    description: Manifests before and after, by object; the data of Secrets is masked.
    support: full
options:
  concurrency:
    description: How many releases are worked on side by side.
    type: int
    default: 6
  on_failure:
    description: After a failure begin nothing else (V(stop)), or all that does not need what failed (V(continue)).
    type: str
    choices: [stop, continue]
    default: stop
  wait:
    description: Wait until the workloads of each release are ready, and say why when they do not get ready.
    type: bool
    default: true
  timeout_s:
    description: How long the readiness of a release, or an orphan of a killed run, is waited for, in seconds.
    type: int
    default: 300
"""

    # what a domain's own modules have in common
    MODULES = r"""
options:
  modules:
    description:
      - Modules as in C(hxmlops_modules), each with C(module) and, where wanted, C(name) (of its release), C(values),
        C(values_file), C(needs) (names of releases), C(state), C(secrets) (given instead of generated), C(delete_data).
      - C(secrets) may be the name of a variable that holds them, which keeps them out of the task's own arguments.
      - By default C(hxmlops_modules) of the domain, or else what a domain of its group is made of.
    type: list
    elements: dict
  only:
    description: Of these only those of this module or name; one that is not among them is taken as it comes.
    type: list
    elements: str
attributes:
  check_mode:
    description: Says what would happen; changes nothing in the cluster.
    support: full
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: full
  action:
    description:
      - Runs on the controller. The domain is the cluster of C(hxmlops_kubeconfig) and C(hxmlops_context), or of
        Ansible's K8S_AUTH_* environment, and its namespace C(hxmlops_namespace).
    support: full
author: HX-MLOps contributors (@hxmlops)
"""
