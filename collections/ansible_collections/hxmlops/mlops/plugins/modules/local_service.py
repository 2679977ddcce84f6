# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: local_service
short_description: Keep a long-lived program of a domain running under supervisord
version_added: 0.1.0
description:
  - Local runtime. One supervisord a domain; it restarts what crashes and rotates logs. Programs listen on 127.0.0.1.
  - The program is started anew when its command, environment or O(packages) changed, and is waited for until healthy.
extends_documentation_fragment: hxmlops.mlops.domain
options:
  name:
    description: Name of the program. With O(state=absent) and no name, everything of the domain stops.
    type: str
  state:
    description: Whether it runs.
    type: str
    choices: [present, absent]
    default: present
  domain_state:
    description: Folder of the domain.
    type: path
    required: true
  python:
    description: The Python that runs it.
    type: path
    required: true
  command:
    description: Arguments of that Python.
    type: list
    elements: str
    default: []
  environment:
    description: Environment variables; no secrets, give paths of files that hold them.
    type: dict
    default: {}
  packages:
    description: Python packages with the program's code; it is started anew when one of them changed.
    type: list
    elements: str
    default: []
  folders:
    description: Folders of its own, made (mode 0700) before it starts.
    type: list
    elements: path
    default: []
  port:
    description: The port it listens on.
    type: int
  health:
    description: Path that answers 200 when it is healthy.
    type: str
    default: /health
  timeout_s:
    description: How long it may take to become healthy, in seconds.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Run the model server
  hxmlops.mlops.local_service:
    name: model_server
    domain_state: "{{ hxmlops_state }}"
    python: "{{ hxmlops_python }}"
    command: [-m, hxmlops_model_server, --port, "18083"]
    port: 18083
    health: /v2/health/live
"""

RETURN = r"""
url:
  description: Where it answers.
  type: str
  returned: success
"""
