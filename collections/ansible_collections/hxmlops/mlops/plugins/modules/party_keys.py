# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: party_keys
short_description: Make a domain's keys and its public card
version_added: 0.1.0
description:
  - Makes the keys that are missing (ECDSA P-256 to sign, X25519 to receive, one for pseudonyms, one for the hidden
    split) and never replaces one. Private keys stay in the domain's folder, mode 0600.
extends_documentation_fragment: [hxmlops.mlops.domain, hxmlops.mlops.domain.state]
options:
  domain:
    description: Name of the domain.
    type: str
    required: true
  party:
    description: Name of the company.
    type: str
    required: true
  people:
    description: People who get a key of their own here and are pinned in this domain.
    type: list
    elements: str
    default: []
  offer:
    description: Copy the public card to this place.
    type: path
"""

EXAMPLES = r"""
- name: Make keys
  hxmlops.mlops.party_keys:
    state: "{{ hxmlops_state }}"
    python: "{{ hxmlops_python }}"
    domain: "{{ inventory_hostname }}"
    party: "{{ hxmlops_party }}"
"""

RETURN = r"""
card:
  description: Path of the public card.
  type: str
  returned: success
fingerprint:
  description: What peers compare over another channel before they import the card.
  type: str
  returned: success
"""
