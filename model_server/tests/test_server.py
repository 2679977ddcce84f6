"""The server's life: it follows serving.json, never fails a request for that, and ends when told."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hxmlops_model_server.testing import INFER, ROW, Client, Parties, Server, Serving, probability, tiny_model

type Start = Callable[[Serving], Server]


@pytest.fixture
def server(one_server: Server) -> Server:
    """A server of nothing yet."""
    one_server.empty()
    return one_server


def test_a_server_without_models_is_ready_for_them(server: Server) -> None:
    serving = server.serving
    client = server.client
    assert client.get("/v2/health/ready")[0] == 200
    serving.add("1.0.0", tiny_model(0.0))
    client.wait("1.0.0")
    assert client.post(INFER, {"inputs": ROW}) == (404, {"error": "the model has no current version yet"})
    serving.switch("1.0.0")
    client.wait_current("1.0.0")
    assert client.post(INFER, {"inputs": ROW})[1]["model_version"] == "1.0.0"


def test_a_version_that_cannot_be_loaded_says_why_and_harms_no_other(server: Server) -> None:
    serving = server.serving
    serving.add("1.0.0", tiny_model(0.0))
    serving.switch("1.0.0")
    (serving.add("1.0.1", tiny_model(1.0)) / "model.onnx").write_bytes(b"something else")
    serving.add("1.0.2", tiny_model(1.0, width=3))
    serving.add("1.0.3", tiny_model(1.0, output="others"))
    serving.add("1.0.4", b"no model")
    reasons = {
        version: server.client.wait(version, "failed")["reason"] for version in ("1.0.1", "1.0.2", "1.0.3", "1.0.4")
    }
    assert reasons == {
        "1.0.1": "the digest of model.onnx is not the one that was accepted",
        "1.0.2": "the model does not take the recipe's 4 features to output probabilities[1] (InvalidArgument)",
        "1.0.3": "the model has no output probabilities, which the contract names",
        "1.0.4": "cannot be loaded (InvalidProtobuf)",
    }
    assert server.client.get("/v2/models/churn/versions/1.0.1/ready") == (503, {"name": "churn", "ready": False})
    status, answer = server.client.post("/v2/models/churn/versions/1.0.1/infer", {"inputs": ROW})
    assert (status, answer["error"]) == (503, f"version 1.0.1 is not ready: {reasons['1.0.1']}")
    assert server.client.get("/v2/health/ready")[0] == 200
    assert server.client.post(INFER, {"inputs": ROW})[0] == 200


def test_a_failed_version_that_is_listed_anew_is_tried_again(server: Server) -> None:
    serving = server.serving
    folder = serving.add("1.0.0", tiny_model(0.0))
    serving.switch("1.0.0")
    (folder / "model.onnx").rename(folder / "elsewhere")
    client = server.client
    assert "model.onnx cannot be read" in client.wait("1.0.0", "failed")["reason"]
    assert client.get("/v2/health/ready")[0] == 503
    (folder / "elsewhere").rename(folder / "model.onnx")
    serving.models["churn"]["versions"]["1.0.0"]["listed_at"] = datetime.now(UTC).isoformat()
    serving.write()
    client.wait("1.0.0")
    assert client.get("/v2/health/ready")[0] == 200


def test_a_damaged_serving_json_changes_nothing(server: Server) -> None:
    serving = server.serving
    serving.add("1.0.0", tiny_model(0.0))
    serving.switch("1.0.0")
    server.client.wait("1.0.0")
    (serving.folder / "serving.json").write_text("{")
    server.wait_for("serving_unreadable")
    assert server.client.post(INFER, {"inputs": ROW})[0] == 200
    serving.write()
    server.client.wait("1.0.0")


def test_no_request_fails_while_versions_come_go_and_change(server: Server) -> None:
    serving = server.serving
    serving.add("1.0.0", tiny_model(0.0))
    serving.switch("1.0.0")
    server.client.wait("1.0.0")
    seen: list[tuple[int, str, bool]] = []
    done = threading.Event()

    def ask() -> None:
        with Client(server.started["port"]) as client:
            while not done.is_set() and len(seen) < 20_000:
                status, answer = client.post(INFER, {"inputs": ROW})
                version = answer.get("model_version", answer)
                due = probability(float(version.rpartition(".")[2])) if status == 200 else 0
                seen.append((status, version, abs(answer["outputs"][2]["data"][0] - due) < 1e-6))

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for number in range(1, 5):
        old, new = f"1.0.{number - 1}", f"1.0.{number}"
        serving.add(new, tiny_model(float(number)))
        server.client.wait(new)
        serving.switch(new, old)
        server.client.wait_current(new)
        if number > 1:
            serving.drop(f"1.0.{number - 2}")
            shutil.rmtree(serving.folder / "churn" / f"1.0.{number - 2}")
    deadline = time.monotonic() + 10
    while seen[-1][1] != "1.0.4" and time.monotonic() < deadline:
        time.sleep(0.01)
    done.set()
    for asker in askers:
        asker.join()
    assert {status for status, _, _ in seen} == {200}
    assert {version for _, version, _ in seen} == {f"1.0.{number}" for number in range(5)}
    assert all(right for _, _, right in seen)
    assert len(seen) > 20


def test_sigterm_waits_for_the_answer_that_is_due(tmp_path: Path, pinned: Parties) -> None:
    serving = Serving(tmp_path, pinned)
    (serving.add("1.0.0", tiny_model(0.0)) / "model.onnx").unlink()
    serving.switch("1.0.0")
    server = Server(serving)
    assert server.started.items() >= {"event": "started", "host": "127.0.0.1"}.items()
    server.client.wait("1.0.0", "failed")
    connection = server.client.connection
    connection.putrequest("POST", INFER)
    connection.putheader("Content-Length", "100")
    connection.endheaders(b" " * 50)
    server.process.terminate()
    server.wait_closed()
    connection.send(b" " * 50)
    answer = connection.getresponse()
    reason = "model.onnx cannot be read: No such file or directory"
    assert (answer.status, json.loads(answer.read())) == (503, {"error": f"version 1.0.0 is not ready: {reason}"})
    code, log = server.stop()
    assert code == 0
    assert [line["event"] for line in log] == ["current", "load_failed", "stopped"]
    assert log[1].items() >= {"model": "churn", "version": "1.0.0", "reason": reason}.items()


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hxmlops_model_server", *options], capture_output=True, text=True)


def test_wrong_options_are_told_in_one_line(tmp_path: Path) -> None:
    missing = run("--serving", str(tmp_path / "none"), "--trust", str(tmp_path))
    assert (missing.returncode, missing.stderr) == (
        3,
        f"hxmlops_model_server: --serving {tmp_path / 'none'}: no such folder\n",
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("--serving", str(tmp_path), "--trust", str(tmp_path), "--port", str(port))
    assert refused.returncode == 3
    assert refused.stderr == (
        f"hxmlops_model_server: cannot listen on 127.0.0.1 port {port}: Address already in use; choose another --port\n"
    )
