"""What uploads must prove, with real keys, statements and artifacts, by HTTP and by the gate alone."""

import asyncio
import io
import json
import os
import pickle
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from hxmlops_evidence import keys, statements
from hxmlops_evidence.artifact import pack
from hxmlops_evidence.bom import BOM, make_bom
from hxmlops_evidence.digests import canonical, digest_of, files_digest, sha256_bytes
from hxmlops_evidence.files import write_atomic
from hxmlops_evidence.signature import sign_folder
from hxmlops_evidence.statements import Envelope
from hxmlops_evidence.trust import import_card
from hxmlops_sharing import evidence_gate
from hxmlops_sharing.evidence_gate import examine
from hxmlops_sharing.folder_store import FolderStore
from hxmlops_sharing.incoming import Content
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.settings import read_settings
from hxmlops_sharing.store import Segment

type Start = Callable[..., AbstractContextManager[httpx.Client]]

EXAMPLES = Path(statements.__file__).parent / "examples"
NOW = datetime.now(UTC)


@dataclass(frozen=True)
class World:
    """`folder/<domain>/keys`, and the pins of the two domains that are known; `stranger` is not."""

    folder: Path

    @property
    def trust(self) -> Path:
        return self.folder / "trust"

    def key(self, domain: str) -> Path:
        return self.folder / domain / "keys" / "signing.pem"

    def sign(self, type_: str, domain: str, subject: str, body: Any, **more: Any) -> Envelope:
        arguments: dict[str, Any] = {
            "workflow_id": "churn",
            "contract_digest": sha256_bytes(b"contract"),
            "run_id": "run-1",
            "issuer": {"party": "vendor" if domain == "software-vendor" else "operator", "domain": domain},
            "audience": "mno-staging",
            "subject_digest": subject,
            "inputs": {"report.json": sha256_bytes(b"report")},
            "sequence": 1,
            "valid_days": 30,
            "issued_at": NOW - timedelta(hours=1),
        }
        made = statements.make(type_, body=body, **(arguments | more))
        return statements.sign(made, keys.load_signing_key(self.key(domain)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    for domain, party in (("software-vendor", "vendor"), ("mno-production", "operator"), ("stranger", "operator")):
        keys.make_keys(folder / domain / "keys")
        card = keys.make_card(folder / domain / "keys", party=party, domain=domain)
        if domain != "stranger":
            import_card(folder / "trust", card, card["fingerprint"])
    return World(folder)


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """A copy whose pins a test may change."""
    return World(Path(shutil.copytree(made.folder, tmp_path / "world")))


def onnx_bytes() -> bytes:
    from onnx import TensorProto, helper

    values = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", [values], [output])
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


def model(
    world: World, where: Path, *, by: str = "software-vendor", evidence_by: str = "",
    files: dict[str, bytes] | None = None, without: tuple[str, ...] = (),
    then: Callable[[Path], Any] = lambda _: None, **statement: Any,
) -> tuple[bytes, Envelope]:  # fmt: skip
    """A model's tar as a vendor makes it, and its evidence; `then` may do something to the signed folder."""
    folder = where / "made"
    for name, data in (files or {"model.onnx": onnx_bytes()}).items():
        write_atomic(folder / name, data)
    content, subject = files_digest(folder)
    body = json.loads((EXAMPLES / "evidence.json").read_bytes())["body"]
    bill = make_bom(
        name="churn",
        version="1.0.1",
        files=content,
        parameters={"seed": 7},
        metrics=body["metrics"],
        dataset=body["dataset"],
        intended_use="Retention offers",
        libraries={"onnx": "1.23.0"},
        timestamp=NOW,
    )
    body |= {"files": content, "bom_digest": sha256_bytes(bill)}
    envelope = world.sign("evidence", evidence_by or by, subject, body, **statement)
    for name, data in (("evidence.json", json.dumps(envelope).encode()), (BOM, bill)):
        if name not in without:
            write_atomic(folder / name, data)
    if "model.sig" not in without:
        sign_folder(folder, world.key(by))
    then(folder)
    pack(folder, where / "model.tar")
    return (where / "model.tar").read_bytes(), envelope


class Gate:
    """`examine` with settings given by keyword, over a store of its own."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        (folder / "store").mkdir()

    def __call__(
        self, *files: bytes, require: str = "", statement: Any = None, cut: int = 1, kind: str = "model", **given: Any
    ) -> Any:
        store = FolderStore(self.folder / "store")
        settings = read_settings(
            kind=kind, auth="none", database="unused", store=str(store.folder), require=require,
            **{"trust": self.world.trust} | given,
        )  # fmt: skip
        contents = [self._content(store, data, cut) for data in files]
        said = {"statement": statement} if statement else {}
        return asyncio.run(examine(settings, store, contents, {"characteristics": said, "parameters": said}))

    def _content(self, store: FolderStore, data: bytes, cut: int) -> Content:
        segments = []
        step = max(1, -(-len(data) // cut))
        for start in range(0, len(data) or 1, step):
            location = f"{sha256_bytes(data)[7:]}-{start}"
            (store.folder / location).write_bytes(data[start : start + step])
            segments.append(Segment(location, len(data[start : start + step])))
        return Content(sha256_bytes(data), len(data), None, tuple(segments))


@pytest.fixture
def gate(tmp_path: Path, world: World) -> Gate:
    return Gate(tmp_path, world)


def outcome(findings: Any) -> dict[str, bool]:
    return {each["criterion"]: each["passed"] for each in findings["criteria"]}


def details(findings: Any) -> dict[str, str]:
    return {each["criterion"]: each["detail"] for each in findings["criteria"]}


ALL = "signature,bom,format"
GOOD = dict.fromkeys(("archive", "signature", "evidence", "bom", "format"), True)


@pytest.mark.parametrize("cut", [1, 3])
def test_a_good_model(gate: Gate, tmp_path: Path, world: World, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    tar, envelope = model(world, tmp_path)
    findings = gate(tar, require=ALL, statement=envelope, cut=cut)
    assert outcome(findings) == GOOD
    assert set(details(findings).values()) == {""}
    assert (findings["issuer"]["party"], findings["issuer"]["domain"]) == ("vendor", "software-vendor")
    assert findings["issuer"]["key_id"] == statements.read(envelope)["issuer"]["key_id"]
    statement = findings["statement"]
    assert (statement["workflow_id"], statement["run_id"]) == ("churn", "run-1")
    assert statement["energy"]["training"]["attempts"] == 2
    assert statement["energy"]["training"]["energy_j_upper"] == pytest.approx(10.3112 + 55.1048)
    assert set(statement["inputs"]) > {"report.json", "dataset.statement_digest"}
    assert statement["metrics"]
    assert findings["bom"] == {"components": 1, "libraries": {"onnx": "1.23.0"}, "licences": []}
    assert findings["format"] == "onnx"
    assert findings["at"].startswith("20")
    assert not list(temporary.iterdir())
    assert json.loads(json.dumps(findings)) == findings


def revoke(world: World) -> None:
    path = world.trust / "software-vendor.json"
    pin = json.loads(path.read_bytes())
    for key in pin["keys"]:
        key["revoked_at"] = "2026-01-01T00:00:00Z"
    path.write_text(json.dumps(pin))


def test_a_revoked_key(gate: Gate, tmp_path: Path, world: World) -> None:
    tar, _ = model(world, tmp_path)
    revoke(world)
    with pytest.raises(Problem, match=r"signature: key .* was revoked") as refused:
        gate(tar, require=ALL)
    assert (refused.value.status_code, refused.value.slug) == (422, "evidence-refused")
    assert "\n" not in str(refused.value.detail)
    assert outcome(gate(tar, require="bom,format")) == GOOD | {"signature": False, "evidence": False}


PICKLE = pickle.dumps({"weights": [1.0]})


@pytest.mark.parametrize(
    ("options", "failed", "reason"),
    [
        ({"without": ("model.sig",)}, "signature", "has no model.sig"),
        ({"by": "stranger"}, "signature", "by no key that is pinned"),
        ({"then": lambda folder: (folder / "extra").write_text("x")}, "signature", "extra is not signed"),
        ({"then": lambda folder: (folder / "model.sig").write_text("{}")}, "signature", "by no key that is pinned"),
        ({"without": (BOM,)}, "bom", "has no bom.cdx.json"),
        ({"files": {"model.onnx": onnx_bytes(), "a.bin": PICKLE}}, "format", "that of pickles"),
        ({"files": {"model.onnx": onnx_bytes(), "weights": PICKLE}}, "format", "a pickle"),
        ({"files": {"model.txt": b"trees"}}, "format", "no model in a format allowed"),
        ({"files": {"model.onnx": b"not onnx"}}, "format", "not an ONNX model"),
        ({"without": ("evidence.json",)}, "evidence", "has no evidence.json"),
        ({"evidence_by": "mno-production"}, "evidence", "not signed by the key that signed the model"),
        ({"issued_at": NOW - timedelta(days=90)}, "evidence", "expired"),
    ],
)
def test_a_model_that_lacks_something(
    gate: Gate, tmp_path: Path, world: World, options: dict[str, Any], failed: str, reason: str
) -> None:
    tar, _ = model(world, tmp_path, **options)
    findings = gate(tar)
    assert not outcome(findings)[failed]
    assert reason in details(findings)[failed]
    if failed == "evidence":
        assert "statement" not in findings
        assert outcome(gate(tar, require=ALL)) == outcome(findings)
        return
    with pytest.raises(Problem, match=f"{failed}: ") as refused:
        gate(tar, require=failed)
    assert (refused.value.status_code, refused.value.slug) == (422, "evidence-refused")


def test_an_allowed_pickle(gate: Gate, tmp_path: Path, world: World) -> None:
    tar, _ = model(world, tmp_path, files={"model.onnx": onnx_bytes(), "scaler.pkl": PICKLE})
    digest = sha256_bytes(PICKLE)
    for allowed in (digest, digest.removeprefix("sha256:")):
        assert outcome(gate(tar, require=ALL, allow_pickles=allowed)) == GOOD


def test_another_statement_in_the_metadata(gate: Gate, tmp_path: Path, world: World) -> None:
    tar, envelope = model(world, tmp_path)
    other = world.sign("evidence", "software-vendor", sha256_bytes(b"x"), statements.read(envelope)["body"])
    findings = gate(tar, statement=other)
    assert "the statement in the metadata" in details(findings)["evidence"]
    assert not outcome(gate(tar, statement={"not": "an envelope"}))["evidence"]


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def member(name: str, *, size: int = 0, type_: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type, info.linkname = size, 0o644, type_, link
    return info


HOSTILE = {
    "climbs": tar_of((member("../../escaped", size=1), b"x")),
    "absolute": tar_of((member("/tmp/escaped", size=1), b"x")),  # noqa: S108
    "link": tar_of((member("link", type_=tarfile.SYMTYPE, link="/etc/passwd"), b"")),
    "device": tar_of((member("null", type_=tarfile.CHRTYPE), b"")),
    "says it is larger": member("large", size=7 << 30).tobuf(tarfile.USTAR_FORMAT),
    "many members": tar_of(*((member(f"{number:05}"), b"") for number in range(2000))),
    "file and folder": tar_of((member("a"), b""), (member("a/b"), b"")),
    "cut off": tar_of((member("model.onnx", size=5000), b"x" * 5000))[:2000],
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_archives(gate: Gate, tmp_path: Path, attack: str) -> None:
    data = HOSTILE[attack]
    findings = gate(data)
    assert True not in outcome(findings).values()
    assert not (tmp_path / "escaped").exists()
    with pytest.raises(Problem, match="archive: "):
        gate(data, require="format")


def test_other_files_are_not_examined(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "create_subprocess_exec", None)
    for data in (b"", b"x", b"\0" * 4096, bytes(range(256)) * 40):
        assert True not in outcome(gate(data)).values()
        with pytest.raises(Problem, match="archive: the file is no tar"):
            gate(data, require="format")
    monkeypatch.setattr(evidence_gate, "LARGEST_UNASKED", 1000)
    assert "larger than" in details(gate(HOSTILE["file and folder"]))["archive"]
    assert gate(b"x", trust=None) is None


def dataset(world: World, ciphertext: bytes, *, by: str = "mno-production", **change: Any) -> tuple[bytes, Envelope]:
    body = json.loads((EXAMPLES / "protection.json").read_bytes())["body"]
    body |= {"ciphertext_digest": sha256_bytes(ciphertext)} | change
    envelope = world.sign("protection", by, sha256_bytes(b"plaintext"), body)
    return canonical(envelope), envelope


def test_a_good_dataset(gate: Gate, world: World) -> None:
    data_model, envelope = dataset(world, b"ciphertext")
    findings = gate(b"ciphertext", data_model, kind="dataset", require="signature", statement=envelope)
    assert outcome(findings) == {"signature": True, "digests": True}
    assert findings["issuer"]["domain"] == "mno-production"
    assert findings["statement"]["energy"]["anonymization"]["attempts"] == 1
    assert set(findings["statement"]["inputs"]) == {"report.json"}


def test_datasets_that_lack_something(gate: Gate, world: World, tmp_path: Path) -> None:
    good, _ = dataset(world, b"ciphertext")
    altered = json.loads(good)
    altered["signatures"][0]["sig"] = altered["signatures"][0]["sig"][:-4] + "AAA="
    other_type = model(world, tmp_path)[1]
    for data_model, ciphertext, criterion in (
        (dataset(world, b"other")[0], b"ciphertext", "digests"),
        (dataset(world, b"ciphertext", by="stranger")[0], b"ciphertext", "signature"),
        (canonical(altered), b"ciphertext", "signature"),
        (canonical(other_type), b"ciphertext", "signature"),
        (b"name,type\nstate,string\n", b"ciphertext", "signature"),
        (b"{}", b"ciphertext", "signature"),
        (b"{", b"ciphertext", "signature"),
        (b'{"a":' * 100_000, b"ciphertext", "signature"),
        (b"", b"", "signature"),
    ):
        with pytest.raises(Problem, match=f"{criterion}: "):
            gate(ciphertext, data_model, kind="dataset", require="signature")
    assert outcome(gate(b"other", good, kind="dataset")) == {"signature": True, "digests": False}


def test_broken_pins_are_the_servers_fault(gate: Gate, tmp_path: Path, world: World) -> None:
    tar, _ = model(world, tmp_path)
    (world.trust / "software-vendor.json").write_text("{}")
    with pytest.raises(Problem, match="tell its owner") as refused:
        gate(tar)
    assert refused.value.status_code == 503
    assert str(tmp_path) not in str(refused.value.detail)


def test_an_examination_that_dies_or_lasts_refuses(
    gate: Gate, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar, _ = model(world, tmp_path)
    monkeypatch.setattr(evidence_gate, "LONGEST_S", 0.01)
    assert "not done after" in details(gate(tar))["archive"]
    with pytest.raises(Problem, match="archive: not done after"):
        gate(tar, require="signature")
    monkeypatch.undo()
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(killed))
    with pytest.raises(Problem, match="broke what examines it"):
        gate(tar, require="signature")


def test_the_server_goes_on_meanwhile_and_leaves_nothing(gate: Gate, tmp_path: Path, world: World) -> None:
    tar, _ = model(world, tmp_path, files={"model.onnx": onnx_bytes(), "large.txt": b"x" * (64 << 20)})
    store = FolderStore(tmp_path / "store")
    content = gate._content(store, tar, 1)
    settings = read_settings(
        kind="model", auth="none", database="unused", store=str(store.folder), trust=world.trust, require=ALL
    )

    async def both() -> float:
        work = asyncio.gather(*(examine(settings, store, [content], {"characteristics": {}}) for _ in range(2)))
        longest = 0.0
        while not work.done():
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - began - 0.005)
        assert [outcome(findings) for findings in await work] == [GOOD, GOOD]
        cancelled = asyncio.ensure_future(examine(settings, store, [content], {"characteristics": {}}))
        await asyncio.sleep(0.3)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return longest

    longest = asyncio.run(both())
    assert longest < 0.25, "the event loop stood still"
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        assert b"hxmlops_sharing.examination" not in Path(f"/proc/{child}/cmdline").read_bytes()


@pytest.fixture
def api(start: Start, world: World) -> Iterator[httpx.Client]:
    with start(trust=world.trust, require=("signature", "bom", "format")) as client:
        yield client


def test_by_http(api: httpx.Client, tmp_path: Path, world: World) -> None:
    tar, envelope = model(world, tmp_path)
    form = {"name": "churn", "version": "1", "characteristics": json.dumps({"statement": envelope})}
    refused = api.post("/api/v1/model", data=form, files={"file": b"not a tar"})
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:hxmlops:problem:evidence-refused")
    assert api.get("/api/v1/model_catalog").status_code == 404
    accepted = api.post("/api/v1/model", data=form, files={"file": tar})
    assert accepted.status_code == 200, accepted.text
    verified = api.get("/api/v1/model/1/evidence").json()["verified"]
    assert outcome(verified) == GOOD
    assert verified["issuer"]["domain"] == "software-vendor"
    assert digest_of(verified)
