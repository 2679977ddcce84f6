"""Real Kubernetes control planes for tests, one for each domain: an API server, its etcd, scheduler and controllers.

kwok stands in for kubelets and the storage driver (kwok.yml says how its pods behave). Nothing of the user's is read or
written: programs, ports, certificates and kubeconfig files are the clusters' own, below one folder.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HERE = Path(__file__).resolve().parent
DOMAINS = ("software-vendor", "mno-staging", "mno-production")
LAST_WORDS = "the container's last words"  # what `kubectl logs` shows of every pod
_KINDS = ("configmaps", "secrets", "services", "persistentvolumeclaims", "serviceaccounts", "deployments",
          "statefulsets", "daemonsets", "jobs", "networkpolicies", "roles", "rolebindings")  # fmt: skip
_PORTS = ("kubeApiserverPort", "etcdPort", "etcdPeerPort", "kubeControllerManagerPort", "kubeSchedulerPort",
          "kwokControllerPort")  # fmt: skip


class CommandFailed(Exception):
    """A command ended otherwise than hoped; what it said."""


@lru_cache
def tools() -> dict[str, Path]:
    """Folders of the programs that the clusters need, by name: kubernetes, etcd, kwok, helm3, helm4. Built once."""
    printed = subprocess.run([HERE / "tools" / "build"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {name: Path(folder) for name, _, folder in (line.partition("=") for line in printed.splitlines())}


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would lead programs elsewhere: proxies, the user's clusters."""
    foreign = ("KWOK_", "HELM_", "K8S_AUTH_", "ANSIBLE_", "HXMLOPS_")
    proxies = ("KUBECONFIG", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign) and k.upper() not in proxies}
    return {**kept, **more}


class Cluster:
    """One control plane. Its name is the domain's, and the context's in `kubeconfig`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = self.context = name
        self.folder = folder
        self.kubeconfig = folder / f"{name}.kubeconfig"
        self.state = folder / "clusters" / name  # kwokctl's: pids, logs, pki

    def start(self) -> None:
        """Start it, and return when it takes pods. Raises CommandFailed with kwokctl's words."""
        ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        logs = self.folder / f"{self.name}.log"
        logs.write_text(f"2026-01-01T00:00:00.000000000Z stdout F {LAST_WORDS}\n")
        patches = {
            "etcd": {"unsafe-no-fsync": "true"},
            # an hour: on a busy machine a late heartbeat is no sign of a dead node
            "kube-controller-manager": {"leader-elect": "false", "node-monitor-grace-period": "1h"},
            "kube-scheduler": {"leader-elect": "false"},
        }
        documents = [
            {
                "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
                "kind": "KwokctlConfiguration",
                "options": {
                    "runtime": "binary",
                    "bindAddress": "127.0.0.1",
                    "disableQPSLimits": True,
                    "kubeApiserverBinary": str(tools()["kubernetes"] / "kube-apiserver"),
                    "kubeControllerManagerBinary": str(tools()["kubernetes"] / "kube-controller-manager"),
                    "kubeSchedulerBinary": str(tools()["kubernetes"] / "kube-scheduler"),
                    "kubectlBinary": str(tools()["kubernetes"] / "kubectl"),
                    "etcdBinary": str(tools()["etcd"] / "server"),
                    "kwokControllerBinary": str(tools()["kwok"] / "kwok"),
                    **ports,
                },
                "componentsPatches": [
                    {"name": name, "extraArgs": [{"key": key, "value": value} for key, value in arguments.items()]}
                    for name, arguments in patches.items()
                ],
            },
            {
                "apiVersion": "kwok.x-k8s.io/v1alpha1",
                "kind": "ClusterLogs",
                "metadata": {"name": "all"},
                "spec": {"logs": [{"logsFile": str(logs), "previousLogsFile": str(logs)}]},
            },
        ]
        config = self.folder / f"{self.name}.yml"
        config.write_text(yaml.safe_dump_all(documents) + (HERE / "kwok.yml").read_text())
        self._kwokctl("create", "cluster", "--config", str(config), "--kubeconfig", "", "--wait", "60s")
        self._write_kubeconfig(
            self.kubeconfig,
            f"https://127.0.0.1:{ports['kubeApiserverPort']}",
            (self.state / "pki" / "admin.crt").read_bytes(),
            (self.state / "pki" / "admin.key").read_bytes(),
        )
        self.kubectl("apply", "-f", str(HERE / "objects.yml"))

    def stop(self) -> None:
        """End its processes, and only these; its data goes."""
        for file in (self.state / "pids").glob("*.pid"):
            self._end(file)
        shutil.rmtree(self.state, ignore_errors=True)

    def kill_apiserver(self) -> None:
        """The API server is gone from one moment to the next, as by a power cut."""
        self._end(self.state / "pids" / "kube-apiserver.pid")

    def restart_apiserver(self) -> None:
        """Start what does not run, and return when it answers. Data are as they were."""
        self._kwokctl("start", "cluster", "--wait", "60s")

    def kubectl(self, *arguments: str, given: str | None = None, kubeconfig: Path | None = None) -> str:
        """What kubectl prints, as the administrator or with another kubeconfig. Raises CommandFailed.

        `given` goes to its standard input: `kubectl("apply", "-f", "-", given=yaml)`.
        """
        command = [tools()["kubernetes"] / "kubectl", "--kubeconfig", kubeconfig or self.kubeconfig]
        return _run([*command, "--context", self.context, *arguments], given=given)

    def apply(self, *objects: Mapping[str, Any], namespace: str = "default") -> None:
        """Create or change plain objects."""
        self.kubectl("apply", "-n", namespace, "-f", "-", given=yaml.safe_dump_all(objects))

    def objects(self, namespace: str) -> dict[str, dict[str, Any]]:
        """What people and Helm made in a namespace, by `Kind/name`, without what the cluster itself notes there."""
        listed = json.loads(self.kubectl("get", ",".join(_KINDS), "-n", namespace, "-o", "json"))["items"]
        for each in listed:
            each.pop("status", None)
            for noted in ("managedFields", "resourceVersion", "generation", "finalizers"):
                each["metadata"].pop(noted, None)
            each["metadata"]["annotations"] = {
                name: value
                for name, value in each["metadata"].get("annotations", {}).items()
                if not name.startswith(("deployment.kubernetes.io/", "pv.kubernetes.io/", "volume."))
            }
        return {f"{each['kind']}/{each['metadata']['name']}": each for each in listed}

    def secret(self, name: str, namespace: str) -> dict[str, str]:
        """A Secret's data in plain text."""
        data = json.loads(self.kubectl("get", f"secret/{name}", "-n", namespace, "-o", "json")).get("data", {})
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def namespace(self, name: str, level: str = "restricted") -> str:
        """Make a namespace that enforces a Pod Security level; its name."""
        labels = {"pod-security.kubernetes.io/enforce": level}
        # the controllers make the account too, a moment later: pods would have to wait for it
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl("apply", "--server-side", "-f", "-", given=yaml.safe_dump_all([space, account]))
        return name

    def quota(self, namespace: str, **hard: str) -> None:
        """Limit a namespace: `quota(namespace, pods="0")`, `**{"requests.memory": "64Mi"}`."""
        spec = {"hard": hard}
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "limit"}, "spec": spec}
        self.apply(quota, namespace=namespace)
        path = "jsonpath={.status.hard." + next(iter(hard)).replace(".", r"\.") + "}"
        self.kubectl("wait", f"--for={path}", "resourcequota/limit", "-n", namespace, "--timeout=30s")

    def user(self, name: str, namespace: str | None = None, role: str = "admin") -> Path:
        """Kubeconfig of somebody with a cluster role's rights in one namespace only, or with none."""
        if namespace is None:
            return self._person(name)
        subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name}
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{name}-{role}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [subject],
        }
        self.apply(binding, namespace=namespace)
        return self._person(name)

    def expired_certificate(self) -> Path:
        """Kubeconfig of an administrator whose certificate ended an hour ago."""
        return self._person("late", group="system:masters", ends=timedelta(hours=-1))

    def _person(self, name: str, group: str = "people", ends: timedelta = timedelta(days=1)) -> Path:
        pki, key, now = self.state / "pki", ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        admin = x509.load_pem_x509_certificate((pki / "admin.crt").read_bytes())
        signing: Any = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(admin.issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + ends)
            .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(signing, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        server = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        path = self.folder / f"{self.name}-{name}-{uuid.uuid4().hex[:8]}.kubeconfig"
        self._write_kubeconfig(path, server, certificate.public_bytes(serialization.Encoding.PEM), private)
        return path

    def _write_kubeconfig(self, path: Path, server: str, certificate: bytes, key: bytes) -> None:
        authority = (self.state / "pki" / "ca.crt").read_bytes()
        certificate_authority = {"certificate-authority-data": base64.b64encode(authority).decode()}
        person = {
            "client-certificate-data": base64.b64encode(certificate).decode(),
            "client-key-data": base64.b64encode(key).decode(),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": {"server": server, **certificate_authority}}],
            "users": [{"name": self.name, "user": person}],
            "contexts": [{"name": self.context, "context": {"cluster": self.name, "user": self.name}}],
            "current-context": self.context,
        }
        _write_private(path, yaml.safe_dump(document))

    def _kwokctl(self, *arguments: str) -> None:
        command = [tools()["kwok"] / "kwokctl", *arguments, "--name", self.name]
        _run(command, env=environment(KWOK_WORKDIR=str(self.folder), HOME=str(self.folder)))

    def _end(self, file: Path) -> None:
        """End the process that a file names, if it is still this cluster's."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            process = int(file.read_text())
            file.unlink()
            while str(self.state).encode() in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGKILL)
                time.sleep(0.01)


def start_all(names: Iterable[str], folder: Path) -> dict[str, Cluster]:
    """Start control planes side by side; `folder`/kubeconfig has all their contexts. All of them, or none."""
    clusters = {name: Cluster(name, folder) for name in names}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tools()
    try:
        on_all(clusters, Cluster.start)
    except BaseException:
        remove(folder)
        raise
    merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []}
    for cluster in clusters.values():
        own = yaml.safe_load(cluster.kubeconfig.read_text())
        for part in ("clusters", "users", "contexts"):
            merged[part] += own[part]
    _write_private(folder / "kubeconfig", yaml.safe_dump(merged))
    return clusters


def on_all(clusters: Mapping[str, Cluster], do: Callable[[Cluster], object]) -> None:
    """Do something on all clusters side by side; raises what the first failing one raised."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(do, clusters.values()))


def found(folder: Path) -> dict[str, Cluster]:
    """The clusters in a folder that `start_all` filled."""
    return {path.name: Cluster(path.name, folder) for path in sorted((folder / "clusters").glob("*"))}


@contextlib.contextmanager
def running(names: Iterable[str] = DOMAINS) -> Iterator[dict[str, Cluster]]:
    """Clusters for as long as this process needs them. What a killed process left behind is ended first."""
    home = Path(tempfile.gettempdir()) / f"hxmlops-clusters-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _locked(home, wait=True):
            for old in home.iterdir():
                with _locked(old) as abandoned:
                    if abandoned:
                        remove(old)
            folder = Path(tempfile.mkdtemp(dir=home))
            stack.enter_context(_locked(folder))
        stack.callback(remove, folder)
        yield start_all(names, folder)


def remove(folder: Path) -> None:
    """End the clusters in a folder, and remove it."""
    for cluster in found(folder).values():
        cluster.stop()
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a folder until the end of the block, or of the process. False: another process holds it."""
    descriptor, held = os.open(folder, os.O_RDONLY), False
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        yield held
    finally:
        os.close(descriptor)


_given: set[int] = set()
_giving = threading.Lock()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, below those that the system gives to outgoing connections."""
    with _giving, contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = random.randrange(25000, 32000)  # noqa: S311 - nothing secret
            with contextlib.suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                if port not in _given:
                    _given.add(port)
                    ports.append(port)
        return ports


def _run(command: list[Any], *, given: str | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        env=env or environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise CommandFailed(f"{Path(command[0]).name} {' '.join(map(str, command[1:]))}: {done.stderr or done.stdout}")
    return done.stdout


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
