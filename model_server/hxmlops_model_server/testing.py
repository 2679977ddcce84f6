"""For tests of what serves and promotes: tiny accepted models, a serving folder of them, and a real server on it.

Needs the package `onnx`, which the server does not.
"""

from __future__ import annotations

import copy
import http.client
import json
import math
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hxmlops_evidence import keys, statements
from hxmlops_evidence.digests import digest_of, sha256_bytes
from hxmlops_evidence.trust import import_card

WORKFLOW = {"id": "churn", "vendor": "vendor", "acceptor": "staging", "server": "production"}
CONTRACT_DIGEST = digest_of("the contract")
COLUMNS = {
    "subscriber": {"type": "integer", "minimum": 1},
    "state": {"type": "string", "pattern": "^[A-Z]{2}$"},
    "tenure": {"type": "integer", "minimum": 0, "unit": "d"},
    "minutes": {"type": "number", "nullable": True, "unit": "min"},
    "roaming": {"type": "boolean"},
    "left": {"type": "string", "values": ["no", "yes"]},
}
RECIPE = {
    "schema_version": "1.0",
    "drop": ["subscriber"],
    "pseudonym": False,
    "columns": {
        "state": {"map": {"CA": "West", "OR": "West", "NY": "East"}},
        "tenure": {"bin": 50},
        "minutes": {"keep": True},
        "roaming": {"keep": True},
        "left": {"keep": True},
    },
    "features": [
        {"name": "state=West", "column": "state", "equals": "West"},
        {"name": "tenure", "column": "tenure"},
        {"name": "minutes", "column": "minutes"},
        {"name": "roaming", "column": "roaming"},
    ],
}
WEIGHTS = [1.0, 0.01, -0.1, 0.5]
INFER = "/v2/models/churn/infer"
ROW: list[dict[str, Any]] = [
    {"name": "state", "datatype": "BYTES", "shape": [1], "data": ["CA"]},
    {"name": "tenure", "datatype": "INT64", "shape": [1], "data": [120]},
    {"name": "minutes", "datatype": "FP64", "shape": [1], "data": [2.5]},
    {"name": "roaming", "datatype": "BOOL", "shape": [1], "data": [True]},
]
VALUES = [1, 100, 2.5, 1]
"""The features of ROW: CA is West, 120 d lie in the bin of 100 d."""
PATIENCE_S = 20.0


def probability(bias: float) -> float:
    """What `tiny_model(bias)` says of ROW."""
    logit = sum(weight * value for weight, value in zip(WEIGHTS, VALUES, strict=True)) + bias
    return 1 / (1 + math.exp(-logit))


def tiny_model(bias: float, width: int = len(WEIGHTS), output: str = "probabilities") -> bytes:
    """probability = sigmoid(WEIGHTS x features + bias), as outputs `label` [rows] and `probabilities` [rows, 2]."""
    weights = np.array([*WEIGHTS, *[0.0] * width][:width], np.float32)[:, None]
    constants = {"weights": weights, "bias": np.array([bias], np.float32), "one": np.array([1], np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["features", "weights", "bias"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["yes"]),
            helper.make_node("Sub", ["one", "yes"], ["no"]),
            helper.make_node("Concat", ["no", "yes"], [output], axis=1),
            helper.make_node("ArgMax", [output], ["label"], axis=1, keepdims=0),
        ],
        "tiny",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", width])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


class Parties:
    """The vendor's and the acceptor's keys, and the production domain's pins of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.trust = folder, folder / "trust"
        for domain, party in (("vendor", "vendor"), ("staging", "operator")):
            keys.make_keys(folder / domain)
            card = keys.make_card(folder / domain, party=party, domain=domain)
            import_card(self.trust, card, card["fingerprint"])

    def sign(
        self,
        type_: str,
        subject_digest: str,
        body: dict[str, Any],
        *,
        by: str | None = None,
        issued_at: datetime | None = None,
    ) -> bytes:
        """A signed statement: the example of its type, with this subject, and these changes to its body."""
        issuer, audience = {"evidence": ("vendor", "staging"), "acceptance": ("staging", "production")}[type_]
        example = json.loads((resources.files("hxmlops_evidence") / "examples" / f"{type_}.json").read_text())
        statement = statements.make(
            type_,
            workflow_id=WORKFLOW["id"],
            contract_digest=CONTRACT_DIGEST,
            run_id="run-1",
            issuer={"party": {"vendor": "vendor", "staging": "operator"}[issuer], "domain": issuer},
            audience=audience,
            subject_digest=subject_digest,
            inputs={},
            sequence=1,
            valid_days=30,
            body=example["body"] | body,
            issued_at=issued_at,
        )
        key = keys.load_signing_key(self.folder / (by or issuer) / keys.SIGNING)
        return json.dumps(statements.sign(statement, key)).encode()


def pin_with(trust: Path, domain: str, field: str) -> None:
    """Set `revoked_at` or `not_after` to yesterday in every key that is pinned for a domain."""
    path = trust / f"{domain}.json"
    pin = json.loads(path.read_bytes())
    yesterday = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    for key in pin["keys"]:
        key[field] = yesterday.isoformat().replace("+00:00", "Z")
    path.write_text(json.dumps(pin))


def accepted(
    folder: Path,
    parties: Parties,
    version: str,
    onnx: bytes,
    *,
    evidence_by: str | None = None,
    issued_at: datetime | None = None,
    decision: str = "accepted",
) -> str:
    """Fill a version's folder: model, recipe, evidence and acceptance. The model's digest."""
    folder.mkdir(parents=True)
    files = {"model.onnx": sha256_bytes(onnx)}
    digest, recipe_digest = digest_of(files), digest_of(RECIPE)
    named = {"name": "churn", "version": version}
    dataset = dict.fromkeys(("statement_digest", "ciphertext_digest", "plaintext_digest"), digest_of("dataset"))
    evidence = named | {"files": files, "dataset": {**dataset, "recipe_digest": recipe_digest}}
    acceptance = named | {"recipe_digest": recipe_digest, "vendor": "vendor", "decision": decision}
    (folder / "model.onnx").write_bytes(onnx)
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    signed = parties.sign("evidence", digest, evidence, by=evidence_by, issued_at=issued_at)
    (folder / "evidence.dsse.json").write_bytes(signed)
    (folder / "acceptance.dsse.json").write_bytes(parties.sign("acceptance", digest, acceptance, issued_at=issued_at))
    return digest


class Serving:
    """A serving folder. `add` puts a version there and lists it, `switch` makes one current."""

    def __init__(self, folder: Path, parties: Parties) -> None:
        self.folder, self.parties = folder, parties
        self.models: dict[str, Any] = {}

    def add(self, version: str, onnx: bytes, *, entry: dict[str, Any] | None = None, **accepted_as: Any) -> Path:
        """The version's folder. `entry` replaces fields of what serving.json says of it."""
        relative = f"churn/{version}"
        digest = accepted(self.folder / relative, self.parties, version, onnx, **accepted_as)
        model = self.models.setdefault(
            "churn", {"current": None, "previous": None, "rolled_back_from": None, "versions": {}}
        )
        model["versions"][version] = {
            "folder": relative,
            "model": f"{relative}/model.onnx",
            "recipe": f"{relative}/recipe.json",
            "model_digest": digest,
            "recipe_digest": digest_of(RECIPE),
            "contract_digest": CONTRACT_DIGEST,
            "workflow": WORKFLOW,
            "columns": COLUMNS,
            "output": {"name": "probabilities", "index": 1},
            "listed_at": datetime.now(UTC).isoformat(),
        } | (entry or {})
        self.write()
        return self.folder / relative

    def switch(self, current: str | None, previous: str | None = None) -> None:
        self.models["churn"] |= {"current": current, "previous": previous}
        self.write()

    def drop(self, version: str) -> None:
        del self.models["churn"]["versions"][version]
        self.write()

    def clear(self) -> None:
        """Nothing listed, nothing there."""
        self.models = {}
        self.write()
        shutil.rmtree(self.folder / "churn", ignore_errors=True)

    def write(self) -> None:
        """Replace serving.json atomically, as the promotion stage does."""
        new = self.folder / ".serving.json.new"
        new.write_text(json.dumps({"schema_version": "1.0", "models": copy.deepcopy(self.models)}))
        new.replace(self.folder / "serving.json")


class Client:
    """Calls of the protocol, one connection, closed at the end of a `with`."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        return self.call("GET", path)

    def post(self, path: str, document: Any) -> tuple[int, Any]:
        return self.call("POST", path, document if isinstance(document, bytes) else json.dumps(document).encode())

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        try:
            self.connection.request(method, path, body)
            response = self.connection.getresponse()
        except http.client.RemoteDisconnected:  # the server closes a connection that was idle for some seconds
            self.connection.close()
            self.connection.request(method, path, body)
            response = self.connection.getresponse()
        return response.status, json.loads(response.read())

    def wait(self, version: str, state: str = "ready") -> dict[str, Any]:
        """The parameters of a version, once the server says that it is in this state."""
        return self._wait(f"/v2/models/churn/versions/{version}", lambda found: bool(found["state"] == state))

    def wait_current(self, version: str) -> dict[str, Any]:
        """The parameters of the current version, once it is this one."""
        return self._wait("/v2/models/churn", lambda found: bool(found["version"] == version))

    def _wait(self, path: str, has_come: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            status, document = self.get(path)
            if status == 200 and has_come(document["parameters"]):
                return dict(document["parameters"])
            time.sleep(0.01)
        raise TimeoutError(f"{path} stays {document}")


class Server:
    """A server process on a serving folder, at any free port. Its log is one JSON object a line."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        folders = ["--serving", str(serving.folder), "--trust", str(serving.parties.trust)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hxmlops_model_server", *folders, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError(self.process.communicate()[1])
        self.started = json.loads(line)
        self.client = Client(self.started["port"])

    def empty(self) -> None:
        """Let it serve nothing."""
        self.serving.clear()
        while self.client.get("/v2/models/churn")[1] != {"error": "no such model"}:
            time.sleep(0.01)

    def wait_for(self, event: str) -> dict[str, Any]:
        """Read the log up to the next line of this event, which is returned."""
        for line in self.process.stdout or ():
            logged: dict[str, Any] = json.loads(line)
            if logged["event"] == event:
                return logged
        raise RuntimeError(f"the server has ended without {event}")

    def wait_closed(self) -> None:
        """Until it takes no new connection."""
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.started["port"]), timeout=PATIENCE_S).close()
            except ConnectionError:
                return
            time.sleep(0.01)

    def stop(self) -> tuple[int, list[dict[str, Any]]]:
        """Ask it to end; its exit code, and the rest of its log."""
        self.client.connection.close()
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        if err:
            raise RuntimeError(err)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()]
