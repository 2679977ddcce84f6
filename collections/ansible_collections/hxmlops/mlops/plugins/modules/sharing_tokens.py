# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: sharing_tokens
short_description: Issue the tokens that a sharing API accepts
version_added: 0.1.0
description:
  - Issues a token to each client that has none that stands for another week with the same rights. The API keeps
    only its SHA-256; the token lies in a file of mode 0600 and is never printed.
  - The domain's own token is put below C(tokens), others below C(issued).
extends_documentation_fragment: [hxmlops.mlops.domain, hxmlops.mlops.domain.state]
options:
  tokens:
    description: The API's tokens file.
    type: path
    required: true
  courier:
    description: Folder that stands for the way by which peers get their tokens (the demo).
    type: path
  clients:
    description: Who may use the API.
    type: list
    elements: dict
    required: true
    suboptions:
      client:
        description: Name of the client, a domain.
        type: str
        required: true
      scopes:
        description: Any of V(read), V(write), V(admin), V(annotate).
        type: list
        elements: str
        default: [read]
      artifacts:
        description: Patterns of artifact names.
        type: list
        elements: str
        default: ["*"]
      days:
        description: Days until it expires.
        type: int
        default: 365
      purpose:
        description: What artifacts may be used for; the audit and receipts say it.
        type: str
        default: ""
      recipient:
        description: The party that receives artifacts; the audit and receipts say it.
        type: str
        default: ""
      quota_bytes:
        description: Bytes that it may store; C(0) for as many as the API's settings say.
        type: int
        default: 0
      requests_per_minute:
        description: Requests that it may make; C(0) for as many as the API's settings say.
        type: int
        default: 0
"""

EXAMPLES = r"""
- name: Issue tokens
  hxmlops.mlops.sharing_tokens:
    tokens: "{{ hxmlops_state }}/model_sharing/tokens.json"
    python: "{{ hxmlops_python }}"
    state: "{{ hxmlops_state }}"
    clients:
      - client: mno-staging
        scopes: [read, annotate]
        purpose: acceptance of models
        recipient: operator
        requests_per_minute: 600
"""

RETURN = r"""
issued:
  description: The clients who got a new token.
  type: list
  elements: str
  returned: success
"""
