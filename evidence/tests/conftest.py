"""Two parties with their domains and people, who have pinned each other, and a model that travels between
them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hxmlops_evidence import keys, statements
from hxmlops_evidence.artifact import pack
from hxmlops_evidence.bom import BOM, make_bom
from hxmlops_evidence.digests import digest_of, files_digest, sha256_bytes
from hxmlops_evidence.files import write_atomic
from hxmlops_evidence.signature import sign_folder
from hxmlops_evidence.trust import Trust, import_card
from hxmlops_evidence.validation import load_schema

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
CONTRACT = sha256_bytes(b"contract")
PARTIES = {"software-vendor": "vendor", "mno-staging": "operator", "mno-production": "operator"}
EXAMPLES = Path(statements.__file__).parent / "examples"


@dataclass(frozen=True)
class World:
    """`folder/<domain>/keys`, `folder/people/<person>.pem`, and one folder of pins that all domains use."""

    folder: Path

    @property
    def trust(self) -> Trust:
        return Trust(self.folder / "trust")

    def signing_key(self, name: str) -> Path:
        person = self.folder / "people" / f"{name}.pem"
        return person if person.exists() else self.folder / name / "keys" / "signing.pem"

    def statement(
        self, type_: str, domain: str, audience: str, subject: str, body: dict[str, Any], /, **more: Any
    ) -> Any:
        """A statement as `make` makes it; `more` overrides its arguments."""
        arguments: dict[str, Any] = {
            "workflow_id": "churn",
            "contract_digest": CONTRACT,
            "run_id": "run-1",
            "issuer": {"party": PARTIES[domain], "domain": domain},
            "audience": audience,
            "subject_digest": subject,
            "inputs": {},
            "sequence": 1,
            "valid_days": 30,
            "issued_at": NOW,
        }
        return statements.make(type_, body=body, **(arguments | more))

    def sign(self, statement: Any, signer: str) -> statements.Envelope:
        return statements.sign(statement, keys.load_signing_key(self.signing_key(signer)))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    cards = []
    for domain, party in PARTIES.items():
        keys.make_keys(folder / domain / "keys")
        cards.append(keys.make_card(folder / domain / "keys", party=party, domain=domain))
    cards += [keys.make_person(folder / "people", party="operator", person=person) for person in ("ada", "grace")]
    for card in cards:
        import_card(folder / "trust", card, card["fingerprint"])
    keys.make_keys(folder / "stranger" / "keys")
    return World(folder)


@pytest.fixture
def own_world(world: World, tmp_path: Path) -> World:
    """A copy whose pins and keys a test may change."""
    shutil.copytree(world.folder, tmp_path / "world")
    return replace(world, folder=tmp_path / "world")


@pytest.fixture
def example() -> Callable[[str], Any]:
    """The example document of this name, anew each time."""
    return lambda name: json.loads((EXAMPLES / f"{name}.json").read_bytes())


@pytest.fixture(scope="session")
def schema_names() -> list[str]:
    folder = Path(statements.__file__).parent / "schemas"
    names = sorted(path.name.removesuffix(".schema.json") for path in folder.glob("*.json"))
    assert all(load_schema(name) for name in names)
    return names


@pytest.fixture(scope="session")
def onnx_model() -> Callable[..., Any]:
    """Make an ONNX model that scales its inputs; arguments make it less innocent."""

    def make(*, inputs: int = 1, elements: int = 1, domain: str = "", external: bool = False) -> Any:
        from onnx import TensorProto, helper

        values = [helper.make_tensor_value_info(f"x{i}", elements, [None, 3]) for i in range(inputs)]
        scale = helper.make_tensor("scale", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
        if external:
            scale.ClearField("float_data")
            scale.data_location = TensorProto.EXTERNAL
            scale.external_data.add(key="location", value="../../weights")
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])
        nodes = [helper.make_node("Mul", ["x0", "scale"], ["y"], domain=domain)]
        graph = helper.make_graph(nodes, "scaler", values, [output], [scale])
        opsets = [helper.make_opsetid(name, 1 if name else 17) for name in {"", domain}]
        return helper.make_model(graph, opset_imports=opsets)

    return make


@pytest.fixture(scope="session")
def build_model(world: World, onnx_model: Callable[..., Any]) -> Callable[..., tuple[Path, statements.Envelope]]:
    """Build, sign and pack a model in a folder, as a vendor does: (tar, evidence's envelope).

    `files` are the model's own, `change` may change the evidence's body, `statement` overrides arguments of `make`,
    `before_signing` and `then` may do something to the folder, and `by` signs instead of the vendor.
    """

    def build(
        where: Path,
        files: dict[str, bytes] | None = None,
        *,
        change: Callable[[dict[str, Any]], Any] = lambda _: None,
        statement: dict[str, Any] | None = None,
        before_signing: Callable[[Path], Any] = lambda _: None,
        then: Callable[[Path], Any] = lambda _: None,
        by: str = "software-vendor",
        bom: bool = True,
    ) -> tuple[Path, statements.Envelope]:
        folder = where / "model"
        shutil.rmtree(folder, ignore_errors=True)
        for name, data in (files or {"model.onnx": onnx_model().SerializeToString()}).items():
            write_atomic(folder / name, data)
        content, _ = files_digest(folder)
        body = json.loads((EXAMPLES / "evidence.json").read_bytes())["body"]
        bill = make_bom(
            name="churn",
            version="1.0.1",
            files=content,
            parameters={"seed": 7},
            metrics=body["metrics"],
            dataset=body["dataset"],
            intended_use="Retention offers to subscribers",
            libraries={"onnx": "1.23.0"},
            timestamp=NOW,
        )
        body |= {"files": content, "bom_digest": sha256_bytes(bill)}
        change(body)
        made = world.statement(
            "evidence", "software-vendor", "mno-staging", digest_of(body["files"]), body, **(statement or {})
        )
        envelope = world.sign(made, by)
        write_atomic(folder / "evidence.json", json.dumps(envelope).encode())
        if bom:
            write_atomic(folder / BOM, bill)
        before_signing(folder)
        sign_folder(folder, world.signing_key(by))
        then(folder)
        pack(folder, where / "model.tar")
        return where / "model.tar", envelope

    return build


@pytest.fixture(scope="session")
def plain_model(
    build_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, statements.Envelope]:
    built: tuple[Path, statements.Envelope] = build_model(tmp_path_factory.mktemp("plain"))
    return built


@pytest.fixture
def signed_model(
    build_model: Callable[..., Any], plain_model: tuple[Path, statements.Envelope], tmp_path: Path
) -> Callable[..., tuple[Path, statements.Envelope]]:
    """`build_model` in the test's own folder; without arguments, a copy of one that was built before."""

    def build(*files: dict[str, bytes], **options: Any) -> Any:
        if files or options:
            return build_model(tmp_path, *files, **options)
        tar, evidence = plain_model
        return Path(shutil.copy(tar, tmp_path)), json.loads(json.dumps(evidence))

    return build
