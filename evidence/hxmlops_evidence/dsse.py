"""DSSE envelopes (github.com/secure-systems-lab/dsse, protocol and envelope v1.0.0), signed by one ECDSA
P-256 key.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hxmlops_evidence.keys import key_id

type Envelope = dict[str, Any]
"""`payloadType`, `payload` in base64, and `signatures` of one `{keyid, sig}`."""

_ECDSA = ec.ECDSA(hashes.SHA256())


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding, which is what gets signed; lengths in bytes."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, key: ec.EllipticCurvePrivateKey) -> Envelope:
    signature = base64.b64encode(key.sign(pae(payload_type, payload), _ECDSA)).decode("ascii")
    return {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode("ascii"),
        "signatures": [{"keyid": key_id(key.public_key()), "sig": signature}],
    }


def unpacked(envelope: Envelope, payload_type: str) -> tuple[bytes, str, bytes]:
    """(payload, key id, signature) of an envelope, nothing verified. ValueError when it has not exactly this
    form.
    """
    try:
        [signature] = envelope["signatures"]
        if set(envelope) != {"payloadType", "payload", "signatures"} or set(signature) != {"keyid", "sig"}:
            raise ValueError("other fields than payloadType, payload, signatures of one keyid and sig")
        if envelope["payloadType"] != payload_type or not isinstance(signature["keyid"], str):
            raise ValueError(f"payloadType is not {payload_type}")
        payload = base64.b64decode(envelope["payload"], validate=True)
        return payload, signature["keyid"], base64.b64decode(signature["sig"], validate=True)
    except (KeyError, TypeError, binascii.Error):
        raise ValueError("not a DSSE envelope with one signature") from None


def is_signed_by(public: ec.EllipticCurvePublicKey, payload_type: str, payload: bytes, signature: bytes) -> bool:
    try:
        public.verify(signature, pae(payload_type, payload), _ECDSA)
    except InvalidSignature:
        return False
    return True
