"""The Model Sharing API as its chart starts it: the pods' commands and environments as processes of this machine.

PostgreSQL and the S3 server are real; Secrets, ConfigMap and mounted files hold what the engine and the charts of
`postgres` and `minio` put there. What is missing is the kubelet.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import s3_server
import yaml
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import SecretKey
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._secrets import value_of
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from postgres import postgresql

from tests.charts.modules import chart, module
from tests.cluster.clusters import tools

MODEL = {"name": "churn", "version": "1.0.0", "status": "staging", "library": "onnx", "libraryVersion": "1.17",
         "domain": "retail", "tag": "churn", "parameters": "{}", "characteristics": "{}"}  # fmt: skip
BYTES = b"a model" * 100_000


def objects(name: str, values: Mapping[str, Any], folder: Path, release: str) -> list[dict[str, Any]]:
    """What helm makes of a module's chart with these values."""
    values_file, helm = folder / f"{release}.yml", tools()["helm4"] / "helm"
    values_file.write_text(yaml.safe_dump(dict(values)))
    command: list[str | Path] = [helm, "template", release, chart(name), "-f", values_file]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [each for each in yaml.safe_load_all(text) if each]


def certificate(folder: Path) -> Path:
    """The files of a `kubernetes.io/tls` Secret, for 127.0.0.1; the certificate is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "models")]), datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "tls.crt"


@contextlib.contextmanager
def pod(container: dict[str, Any], environment: Mapping[str, str], log: Path) -> Iterator[dict[str, Any]]:
    """A container's command with this environment, as soon as it serves; gives what it logged of its ports."""
    command = [sys.executable, *container["command"][1:]]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environment}
    with log.open("wb") as errors, subprocess.Popen(command, env=env, stderr=errors) as process:
        try:
            for _ in range(1000):
                lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
                serving = [line for line in lines if line.get("event") == "serving"]
                if serving:
                    yield serving[0]
                    break
                assert process.poll() is None, log.read_text()
                time.sleep(0.02)
            else:
                raise TimeoutError(log.read_text())
        finally:
            process.terminate()
            assert process.wait(40) == 0, log.read_text()


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A folder with what the link's Secrets hold, `tokens`, `signing` and `tls`, and an empty `data`; Ana's token."""
    for name in ("data", "tokens", "signing"):
        (tmp_path / name).mkdir()
    _, signing = module("model_sharing")["secrets"]
    key = tmp_path / "signing" / "signing.pem"
    key.write_text(value_of(SecretKey(generate=signing["data"]["signing.pem"]["generate"])))
    key.chmod(0o440)
    certificate(tmp_path / "tls")
    create: list[str | Path] = [
        sys.executable, "-m", "hxmlops_sharing", "token", "create", "--tokens", tmp_path / "tokens" / "tokens.json",
        "--client", "ana", "--days", "1", "--scope", "write", "--scope", "read",
    ]  # fmt: skip
    subprocess.run([*create, "--out", tmp_path / "ana.token"], check=True, stdout=subprocess.DEVNULL)
    return tmp_path


def environment_of(
    container: Mapping[str, Any], known: Mapping[str, Mapping[str, str]], folder: Path
) -> dict[str, str]:
    """A container's environment as a kubelet makes it, but on free ports of this machine, with mounts in a folder."""
    made: dict[str, str] = {}
    for each in container["env"]:
        if "valueFrom" in each:
            ((_, reference),) = each["valueFrom"].items()
            value = known[reference["name"]][reference["key"]]
        else:
            value = each["value"]
        value = re.sub(r"\$\((\w+)\)", lambda name: made[name[1]], value)
        made[each["name"]] = re.sub(r"^/(?=(data|tokens|signing|tls)/)", f"{folder}/", value)
    hosts = {"HXMLOPS_SHARING_HOST": "127.0.0.1", "HXMLOPS_SHARING_METRICS_HOST": "127.0.0.1"}
    return made | hosts | {"HXMLOPS_SHARING_PORT": "0", "HXMLOPS_SHARING_METRICS_PORT": "0"}


def spec_of(made: list[dict[str, Any]]) -> dict[str, Any]:
    """The Deployment's."""
    (spec,) = (each["spec"] for each in made if each["kind"] == "Deployment")
    return dict(spec)


@contextlib.contextmanager
def clients(spec: dict[str, Any], environment: Mapping[str, str], folder: Path) -> Iterator[list[httpx.Client]]:
    """As many pods as a Deployment wants, all probes of which succeed, and their metrics; Ana's clients of them."""
    (container,) = spec["template"]["spec"]["containers"]
    token = {"Authorization": f"Bearer {(folder / 'ana.token').read_text().strip()}"}
    trusted = ssl.create_default_context(cafile=str(folder / "tls" / "tls.crt"))
    with contextlib.ExitStack() as stack:
        opened = []
        for number in range(spec["replicas"]):
            serving = stack.enter_context(pod(container, environment, folder / f"{number}.log"))
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container[probe]["httpGet"]
                url = f"{asked['scheme'].lower()}://127.0.0.1:{serving['port']}"
                assert httpx.get(f"{url}{asked['path']}", verify=trusted).status_code == 200
            path = spec["template"]["metadata"]["annotations"]["prometheus.io/path"]
            metrics = httpx.get(f"http://127.0.0.1:{serving['metrics_port']}{path}")
            assert (metrics.status_code, "# TYPE" in metrics.text) == (200, True)
            opened.append(stack.enter_context(httpx.Client(base_url=url, verify=trusted, headers=token)))
        yield opened


def upload(client: httpx.Client) -> str:
    """Digest of a model that is registered now."""
    posted = client.post("/api/v1/model", data=MODEL, files={"file": ("m.onnx", BYTES)})
    assert posted.status_code == 200, posted.text
    return str(posted.json()["sha256"])


def delivery(client: httpx.Client, receipt: str) -> dict[str, Any]:
    """What a receipt says, as soon as the download is on record as ended."""
    for _ in range(200):
        answer = client.get(receipt)
        if answer.status_code != 409:
            break
        time.sleep(0.02)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = json.loads(base64.b64decode(answer.json()["payload"]))
    return said


def test_by_default_one_pod_serves_from_its_claim(mounted: Path) -> None:
    spec = spec_of(objects("model_sharing", {"issuer": "mno-staging"}, mounted, "models"))
    environment = environment_of(spec["template"]["spec"]["containers"][0], {}, mounted)
    with clients(spec, environment, mounted) as (client,):
        digest = upload(client)
    with clients(spec, environment, mounted) as (client,):  # another pod on the same claim
        answer = client.get(f"/api/v1/artifacts/{digest}")
        assert answer.content == BYTES
        assert delivery(client, answer.headers["X-HXMLOps-Receipt"])["client"] == "ana"


def test_two_pods_serve_from_the_domains_postgresql_and_bucket_over_tls(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_server, "PROGRAM", str(tools()["versitygw"] / "versitygw"))
    (mounted / "s3").mkdir()
    with postgresql() as database, s3_server.running(mounted / "s3") as store:
        database.sql("CREATE DATABASE hxmlops")  # as the image of `postgres` does
        outside = {"backend": "external", "endpoint": store.endpoint, "region": s3_server.REGION}
        (contract,) = objects("minio", {**outside, "buckets": [s3_server.BUCKET]}, mounted, "minio")
        known = {
            contract["metadata"]["name"]: contract["data"],
            "minio-auth": {"accessKey": store.access_key, "secretKey": store.secret_key},
            "postgres-auth": {"username": "hxmlops", "password": database.password},
        }
        values = {
            # there is no Service here: the release's host is a port of this machine
            "database": {"release": "postgres", "host": "127.0.0.1", "port": database.port},
            "store": {"release": "minio"},
            "tls": {"existingSecret": "models-tls"},
            "replicas": 2,
            "issuer": "mno-staging",
            "settings": {"requests_per_minute": 6000, "grace_days": 7.5, "catalogue": True},
        }
        spec = spec_of(objects("model_sharing", values, mounted, "models"))
        environment = environment_of(spec["template"]["spec"]["containers"][0], known, mounted)
        with clients(spec, environment, mounted) as (one, other):
            answer = other.get(f"/api/v1/artifacts/{upload(one)}")
            assert answer.content == BYTES
            # either pod proves what the other handed over
            said = delivery(one, answer.headers["X-HXMLOps-Receipt"])
            assert (said["issuer"], said["client"], said["bytes"]) == ("mno-staging", "ana", len(BYTES))
        assert store.objects()
        assert all(key.startswith("models/") for key in store.objects()), "below the release's name"
        assert list((mounted / "data").iterdir()) == [], "nothing on a claim"
