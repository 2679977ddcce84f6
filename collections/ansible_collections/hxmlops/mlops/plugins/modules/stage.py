# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: stage
short_description: Run one stage of a workflow, or take its recorded result
version_added: 0.1.0
description:
  - Runs C(python -m hxmlops_stages STAGE) in the domain and waits for it, showing its progress.
  - A result recorded for the same specification, code, libraries and input digests, whose files still hash right
    and which has not expired, is taken as it is. The stages that are gates (fetch, gate, promotion) run every time.
  - A program left over from a killed run is waited for, and its result adopted.
extends_documentation_fragment: hxmlops.mlops.domain
options:
  stage:
    description: Name of the stage, as in C(python -m hxmlops_stages --help).
    type: str
    required: true
  run:
    description: What M(hxmlops.mlops.workflow_run) returned.
    type: dict
    required: true
  inputs:
    description: Names in the stage's input folder, and the files or folders they stand for.
    type: dict
    default: {}
  optional:
    description: Those of O(inputs) that may be missing.
    type: list
    elements: str
    default: []
  parameters:
    description: The stage's own parameters, without secrets.
    type: dict
    default: {}
  energy_of:
    description: Stages whose energy this one has to declare in the statement it signs.
    type: list
    elements: str
    default: []
  with_ledger:
    description: Give the stage the energy records of each step's last success and of the failures around it.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Test the model
  hxmlops.mlops.stage:
    stage: testing
    run: "{{ run }}"
    inputs:
      model: "{{ training.output }}/model"
      data.parquet: "{{ training.output }}/holdout.parquet"
      recipe.json: "{{ dataset.output }}/recipe.json"
  register: testing
"""

RETURN = r"""
output:
  description: Folder of the products; in check mode of a stage not done yet a mark that later stages understand.
  type: str
  returned: success
summary:
  description: The stage's own account in one line.
  type: str
  returned: success
metrics:
  description: Figures by name.
  type: dict
  returned: success
facts:
  description: References for the next step, such as C(hxmlops_model).
  type: dict
  returned: success
energy:
  description: Energy record of the stage (see docs/energy.md of the project).
  type: dict
  returned: success
would_run:
  description: True in check mode when the stage has no result yet.
  type: bool
  returned: success
criterion:
  description: Which criterion of a gate said no.
  type: str
  returned: failure
exit_code:
  description: 2 refused, 3 bad input, 4 out of resources, 1 anything else.
  type: int
  returned: failure
"""
