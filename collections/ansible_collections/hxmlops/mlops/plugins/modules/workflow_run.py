# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: workflow_run
short_description: Begin a run of a workflow in a domain
version_added: 0.1.0
description:
  - Loads the workflow file, checks its keys (an unknown one is refused with the nearest right one), and resolves
    its paths against its folder.
  - Has the contract checked by the programs that both parties run, and keeps a copy of it in the domain.
  - Claims the domain for this ansible-playbook process. Another live process that holds it is named, and the task
    fails; the claim of a dead one is taken over.
  - The domain is the host; its settings are the inventory variables C(hxmlops_party), C(hxmlops_runtime),
    C(hxmlops_state), C(hxmlops_python) and C(hxmlops_location), and C(hxmlops_lock) where a lock file pins the
    libraries of that Python; with another lock, compute is done again.
extends_documentation_fragment: hxmlops.mlops.domain
options:
  workflow:
    description: Path of the workflow file.
    type: path
    required: true
  part:
    description: The part that this domain must have in the workflow.
    type: str
    choices: [any, owner, vendor, acceptor, server]
    default: any
"""

EXAMPLES = r"""
- name: Begin the run
  hxmlops.mlops.workflow_run:
    workflow: workflows/churn/workflow.yml
    part: vendor
  register: run
"""

RETURN = r"""
id:
  description: Identifier of the run, the same for all tasks of one ansible-playbook; C(check) in check mode.
  type: str
  returned: success
part:
  description: What the workflow file says for this domain, paths absolute and defaults filled in.
  type: dict
  returned: success
contract_digest:
  description: SHA-256 of the canonical form of the contract, the same for every party that holds it.
  type: str
  returned: success
"""
