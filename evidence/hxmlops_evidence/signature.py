"""The signature `model.sig` over every other file of a model's folder, in the format of OpenSSF Model Signing
1.0.

It is made by `model_signing` (key mode). It is verified here, by the same format's rules without its options:
the library's verifier honours paths to ignore that the signature itself names, leaves out `.git` and the
like, accepts the faulty encoding of releases before 1.0, and takes most of a second to import, at every gate.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from hxmlops_evidence import dsse
from hxmlops_evidence.digests import files_digest
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.files import write_atomic
from hxmlops_evidence.keys import load_signing_key

SIGNATURE = "model.sig"
LARGEST_DOCUMENT = 16 << 20
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_IN_TOTO = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}


def sign_folder(folder: Path, key: Path) -> None:
    """Write `folder/model.sig` over every other file, hidden ones too, with the ECDSA P-256 key in this file.

    BadInput for a key that is none, and for links or special files in the folder. Imports model_signing (0.6
    s).
    """
    from model_signing import hashing, signing

    load_signing_key(key)
    (folder / SIGNATURE).unlink(missing_ok=True)
    files_digest(folder)
    everything = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    signer = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(everything)
    with tempfile.TemporaryDirectory() as scratch:
        signature = Path(scratch) / SIGNATURE
        signer.sign(folder, signature)
        write_atomic(folder / SIGNATURE, signature.read_bytes())


def verify_folder(folder: Path, public_key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """{path: digest} of the signed files, which are exactly the folder's files beside `model.sig`.

    Refused("signature") when the signature is missing, is not by this key, or names paths to ignore or
    another way of digesting; Refused("members") when the folder has other files or other content than was
    signed.
    """
    try:
        bundle = json.loads(read_document(folder / SIGNATURE))
    except FileNotFoundError:
        raise Refused("signature", f"the model has no {SIGNATURE}; ask its vendor to sign it") from None
    except (ValueError, RecursionError):
        raise Refused("signature", f"{SIGNATURE} is not a Sigstore bundle; ask its vendor to sign again") from None
    signed = _signed_files(bundle, public_key)
    actual, _ = files_digest(folder)
    del actual[SIGNATURE]
    for what, names in {
        "not signed": actual.keys() - signed.keys(),
        "signed but missing": signed.keys() - actual.keys(),
        "not what was signed": {name for name in actual.keys() & signed.keys() if actual[name] != signed[name]},
    }.items():
        if names:
            raise Refused("members", f"{_some(names)} {what}; ask the vendor for the model as it was signed")
    return signed


def read_document(path: Path) -> bytes:
    """A document beside a model's files. Refused("archive") when nobody would have written one of that size."""
    if path.stat().st_size > LARGEST_DOCUMENT:
        raise Refused("archive", f"{path.name} is larger than {LARGEST_DOCUMENT >> 20} MiB; ask for a smaller one")
    return path.read_bytes()


def _signed_files(bundle: Any, public_key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    try:
        if bundle["mediaType"] != _BUNDLE:
            raise ValueError("another bundle version")
        payload, _, signature = dsse.unpacked(bundle["dsseEnvelope"], _IN_TOTO)
        if not dsse.is_signed_by(public_key, _IN_TOTO, payload, signature):
            raise Refused("signature", f"{SIGNATURE} is not by the vendor's key, or was altered; ask for it again")
        statement = json.loads(payload)
        if (statement["_type"], statement["predicateType"]) != (_STATEMENT, _PREDICATE):
            raise ValueError("another statement or predicate type")
        [subject], predicate = statement["subject"], statement["predicate"]
        if predicate["serialization"] != _SERIALIZATION:
            raise Refused("signature", f"{SIGNATURE} leaves out paths or digests otherwise than file by file")
        resources = predicate["resources"]
        digests = {entry["name"]: bytes.fromhex(entry["digest"]) for entry in resources}
        if len(digests) != len(resources) or any(entry["algorithm"] != "sha256" for entry in resources):
            raise ValueError("a file twice, or another algorithm than SHA-256")
        if hashlib.sha256(b"".join(digests.values())).hexdigest() != subject["digest"]["sha256"]:
            raise ValueError("its root digest is not that of its files")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused("signature", f"{SIGNATURE} has not the form of OpenSSF Model Signing 1.0") from None
    return {name: f"sha256:{digest.hex()}" for name, digest in digests.items()}


def _some(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (" and others" if len(shown) > 3 else "") + (" are" if len(shown) > 1 else " is")
