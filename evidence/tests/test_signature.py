"""The signature over a model's folder, beside that of the library whose format it is."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hxmlops_evidence import dsse, keys
from hxmlops_evidence.digests import files_digest
from hxmlops_evidence.errors import BadInput, Refused
from hxmlops_evidence.signature import sign_folder, verify_folder

IN_TOTO = "application/vnd.in-toto+json"


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signer")
    keys.make_keys(folder / "keys")
    return folder / "keys" / "signing.pem"


@pytest.fixture(scope="session")
def public(key: Path) -> ec.EllipticCurvePublicKey:
    return keys.load_signing_key(key).public_key()


def fill(folder: Path) -> Path:
    for name in ("model.onnx", "sub/labels.txt", ".git/HEAD", ".gitignore", ".github/workflow", "évidence.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def model(tmp_path: Path, key: Path) -> Path:
    sign_folder(fill(tmp_path / "model"), key)
    return tmp_path / "model"


def library_accepts(model: Path, public: ec.EllipticCurvePublicKey) -> bool:
    """Whether model_signing's own verifier does, told to leave nothing out."""
    from model_signing import hashing, verifying

    pem = model.parent / "public.pem"
    pem.write_text(keys.public_pem(public))
    everything = hashing.Config().set_ignored_paths(paths=[Path("model.sig")], ignore_git_paths=False)
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=pem).set_hashing_config(everything)
    try:
        verifier.verify(model, model / "model.sig")
    except ValueError:
        return False
    return True


def resign(model: Path, key: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Sign with the vendor's own key what the library would not have made."""
    bundle = json.loads((model / "model.sig").read_bytes())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    envelope = dsse.seal(IN_TOTO, json.dumps(statement).encode(), keys.load_signing_key(key))
    (model / "model.sig").write_text(json.dumps(bundle | {"dsseEnvelope": envelope}))


def test_a_signed_folder_verifies_with_every_file_in_it(model: Path, public: ec.EllipticCurvePublicKey) -> None:
    files, _ = files_digest(model)
    del files["model.sig"]
    assert verify_folder(model, public) == files
    assert {".git/HEAD", ".gitignore", ".github/workflow"} <= files.keys()


def test_model_signing_verifies_what_we_sign(model: Path, public: ec.EllipticCurvePublicKey) -> None:
    assert library_accepts(model, public)
    (model / "model.onnx").write_text("other")
    assert not library_accepts(model, public)


def test_signing_again_replaces_the_signature(model: Path, key: Path, public: ec.EllipticCurvePublicKey) -> None:
    (model / "model.onnx").write_text("newer")
    sign_folder(model, key)
    assert "model.sig" not in verify_folder(model, public)


@pytest.mark.parametrize("name", ["model.onnx", "sub/labels.txt", ".git/HEAD", ".gitignore"])
def test_a_changed_file_is_refused(model: Path, public: ec.EllipticCurvePublicKey, name: str) -> None:
    (model / name).write_text("other")
    with pytest.raises(Refused, match=f"^members: {name} is not what was signed"):
        verify_folder(model, public)


@pytest.mark.parametrize("name", ["added", ".git/added", ".github/added", ".gitattributes", "sub/model.sig"])
def test_an_added_file_is_refused(model: Path, public: ec.EllipticCurvePublicKey, name: str) -> None:
    (model / name).write_text("more")
    with pytest.raises(Refused, match=f"^members: {name} is not signed"):
        verify_folder(model, public)


@pytest.mark.parametrize("name", ["model.onnx", ".gitignore"])
def test_a_missing_file_is_refused(model: Path, public: ec.EllipticCurvePublicKey, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(Refused, match=f"^members: {name} is signed but missing"):
        verify_folder(model, public)


def test_many_odd_files_are_not_all_listed(model: Path, public: ec.EllipticCurvePublicKey) -> None:
    for number in range(9):
        (model / f"added{number}").write_text("more")
    with pytest.raises(Refused, match=r"^members: added0, added1, added2 and others are not signed"):
        verify_folder(model, public)


def test_a_link_is_refused(model: Path, public: ec.EllipticCurvePublicKey) -> None:
    (model / "link").symlink_to("model.onnx")
    with pytest.raises(BadInput, match="remove links"):
        verify_folder(model, public)


def test_a_missing_signature_is_refused(model: Path, public: ec.EllipticCurvePublicKey) -> None:
    (model / "model.sig").unlink()
    with pytest.raises(Refused, match=r"^signature: the model has no model\.sig"):
        verify_folder(model, public)


def test_another_key_is_refused(model: Path) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(Refused, match=r"^signature: model\.sig is not by the vendor's key"):
        verify_folder(model, stranger)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'"sig"', b"[" * 100_000, b"\xff"])
def test_what_is_no_signature_is_refused(model: Path, public: ec.EllipticCurvePublicKey, content: bytes) -> None:
    (model / "model.sig").write_bytes(content)
    with pytest.raises(Refused, match=r"^signature: "):
        verify_folder(model, public)


def test_paths_that_the_signature_says_to_ignore_are_refused(
    model: Path, key: Path, public: ec.EllipticCurvePublicKey
) -> None:
    def ignore(statement: dict[str, Any]) -> None:
        statement["predicate"]["serialization"]["ignore_paths"] = ["added"]

    resign(model, key, ignore)
    (model / "added").write_text("more")
    with pytest.raises(Refused, match=r"^signature: model\.sig leaves out paths"):
        verify_folder(model, public)


def test_what_the_library_signs_by_default_is_refused(
    tmp_path: Path, key: Path, public: ec.EllipticCurvePublicKey
) -> None:
    """Its defaults leave out .git, .github, .gitignore and .gitattributes."""
    from model_signing import signing

    model = fill(tmp_path / "model")
    signing.Config().use_elliptic_key_signer(private_key=key).sign(model, model / "model.sig")
    with pytest.raises(Refused, match=r"^signature: model\.sig leaves out paths"):
        verify_folder(model, public)


@pytest.mark.parametrize(
    "change",
    [
        lambda statement: statement.update(predicateType="https://model_signing/Digests/v0.1"),
        lambda statement: statement.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda statement: statement["predicate"]["serialization"].update(method="shards", shard_size=1),
        lambda statement: statement["predicate"]["serialization"].update(hash_type="blake3"),
        lambda statement: statement["predicate"]["serialization"].update(allow_symlinks=True),
        lambda statement: statement["predicate"]["resources"].append(statement["predicate"]["resources"][0]),
        lambda statement: statement["predicate"]["resources"].pop(),
        lambda statement: statement["predicate"]["resources"][0].update(algorithm="blake2"),
        lambda statement: statement["predicate"]["resources"][0].update(digest="none"),
        lambda statement: statement["subject"].append(statement["subject"][0]),
        lambda statement: statement.pop("predicate"),
    ],
)
def test_another_form_than_the_one_we_write_is_refused(
    model: Path, key: Path, public: ec.EllipticCurvePublicKey, change: Callable[[dict[str, Any]], Any]
) -> None:
    resign(model, key, change)
    with pytest.raises(Refused, match=r"^signature: "):
        verify_folder(model, public)


def test_the_faulty_encoding_of_old_releases_is_refused(
    model: Path, key: Path, public: ec.EllipticCurvePublicKey
) -> None:
    from cryptography.hazmat.primitives import hashes

    bundle = json.loads((model / "model.sig").read_bytes())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    faulty = f"DSSEV1 {len(IN_TOTO)} {IN_TOTO} {len(payload)} {payload!r}".encode()
    signature = keys.load_signing_key(key).sign(faulty, ec.ECDSA(hashes.SHA256()))
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    (model / "model.sig").write_text(json.dumps(bundle))
    with pytest.raises(Refused, match=r"^signature: "):
        verify_folder(model, public)
