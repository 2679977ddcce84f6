# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: peers
short_description: Pin peers' public keys, take their tokens
version_added: 0.1.0
description:
  - A card is imported when its fingerprint is the one given; a new key of a known peer is added beside the old.
extends_documentation_fragment: [hxmlops.mlops.domain, hxmlops.mlops.domain.state]
options:
  peers:
    description: The inventory's C(hxmlops_peers), each with C(url), C(card), C(fingerprint) and C(token_file).
    type: dict
    required: true
  what:
    description: What to take.
    type: str
    choices: [keys, tokens]
    required: true
  trust_unseen:
    description: Take the fingerprint from the card itself. For a demo on one machine only.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Pin keys
  hxmlops.mlops.peers:
    what: keys
    state: "{{ hxmlops_state }}"
    python: "{{ hxmlops_python }}"
    peers: "{{ hxmlops_peers }}"
"""

RETURN = r"""
imported:
  description: The peers from whom something new was taken.
  type: list
  elements: str
  returned: success
"""
