# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""The helm program, and the release records that it keeps as Secrets (Helm's documentation, storage backends)."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import parse_yaml_all, write_private
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kubeconfig import as_kubeconfig
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import Release

OLDEST = (3, 14)
PLAN = "hxmlops.io/plan"  # <digest of the plan>.<revision that it was for>
READY = "hxmlops.io/ready"  # the revision that was seen ready
KEYS = "hxmlops.io/keys"  # on a Secret that we made: which keys it has
HISTORY = 10


class HelmError(UserError):
    """helm failed, or is not there; the text is its own last words, shortened to what a person needs."""


@dataclass(frozen=True)
class Record:
    """Metadata of one revision of a release, without its content."""

    name: str
    namespace: str
    revision: int
    status: str  # deployed, failed, superseded, uninstalled, pending-install, pending-upgrade, pending-rollback
    labels: Mapping[str, str]
    since: str = ""

    @property
    def secret(self) -> str:
        return f"sh.helm.release.v1.{self.name}.v{self.revision}"

    def has_plan(self, plan: str) -> bool:
        """True when this very revision was made from the plan (labels are inherited, so it names its revision)."""
        return self.labels.get(PLAN) == f"{plan}.{self.revision}"

    @property
    def seen_ready(self) -> bool:
        return self.labels.get(READY) == str(self.revision)


@dataclass
class Stored:
    """What one metadata-only read of a namespace's Secrets tells."""

    history: dict[str, list[Record]] = field(default_factory=dict)  # by release, oldest first
    secrets: dict[str, set[str] | None] = field(default_factory=dict)  # by name: keys, None when not made by us

    def latest(self, name: str) -> Record | None:
        revisions = self.history.get(name)
        return revisions[-1] if revisions else None


def stored(kube: Kube, namespace: str) -> Stored:
    """Release records and Secrets of a namespace. One request, metadata only."""
    found = Stored()
    for item in kube.list(f"/api/v1/namespaces/{namespace}/secrets", metadata=True):
        metadata = item["metadata"]
        labels = metadata.get("labels") or {}
        if labels.get("owner") == "helm" and metadata["name"].startswith("sh.helm.release."):
            record = Record(
                labels.get("name", ""),
                namespace,
                int(labels.get("version", 0)),
                labels.get("status", "unknown"),
                labels,
                metadata.get("creationTimestamp") or "",
            )
            found.history.setdefault(record.name, []).append(record)
        else:
            keys = (metadata.get("annotations") or {}).get(KEYS)
            found.secrets[metadata["name"]] = None if keys is None else set(keys.split(","))
    for revisions in found.history.values():
        revisions.sort(key=lambda record: record.revision)
    return found


def content(kube: Kube, record: Record) -> dict[str, Any] | None:
    """The whole release of a revision (chart, config, manifest, hooks, info), or None when it is gone."""
    secret = kube.get(f"/api/v1/namespaces/{record.namespace}/secrets/{record.secret}")
    if secret is None:
        return None
    release: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))))
    return release


def manifests(text: str) -> list[dict[str, Any]]:
    """Objects of a manifest, lists unfolded."""
    objects: list[dict[str, Any]] = []
    for document in parse_yaml_all(text):
        if isinstance(document, dict) and document.get("kind") == "List":
            objects += document.get("items") or []
        elif isinstance(document, dict) and document.get("kind"):
            objects.append(document)
    return objects


class Helm:
    """The helm program for one cluster; without one (None) it only renders."""

    def __init__(self, kube: Kube | None, binary: str | None = None, timeout_s: int = 300) -> None:
        self.kube = kube
        self.timeout = ["--timeout", f"{timeout_s}s"]
        found = shutil.which(os.path.expanduser(binary or "helm"))  # noqa: PTH111 - which takes text
        if found is None:
            raise HelmError(
                f"no {binary or 'helm'} here: install Helm {'.'.join(map(str, OLDEST))} or newer on the controller, "
                "or name the program with helm_binary_path"
            )
        self.binary = found
        self.version = self._version()
        if self.version < OLDEST:
            raise HelmError(
                f"{found} is Helm {'.'.join(map(str, self.version))}: {'.'.join(map(str, OLDEST))} or newer is needed "
                "(labels on releases): update it, or name another program with helm_binary_path"
            )

    def _version(self) -> tuple[int, ...]:
        try:
            said = subprocess.run(
                [self.binary, "version", "--short"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise HelmError(f"{self.binary} does not run: {error}") from None
        numbers = re.search(r"v(\d+)\.(\d+)", said)
        if not numbers:
            raise HelmError(f"{self.binary} says it is {said.strip()!r}: that is no Helm")
        return tuple(map(int, numbers.groups()))

    def template(
        self, release: Release, kube_version: str | None, api_versions: Sequence[str], *, upgrade: bool
    ) -> str:
        """The release's manifest without touching the cluster; checks values against the chart's schema."""
        options = ["--no-hooks", *(["--is-upgrade"] if upgrade else [])]
        if kube_version:
            options += ["--kube-version", kube_version]
        for version in api_versions:
            options += ["--api-versions", version]
        return self._run(["template", release.name, *_chart(release), "--values", "-", *options], release)

    def upgrade(self, release: Release, plan: str, revision: int, *, force: bool = False, lock: int = -1) -> None:
        """Install or upgrade; the record bears the plan and the revision that it is expected to be."""
        # the server validates what is applied: helm would fetch and parse the API's whole OpenAPI documents, twice
        options = [*self.timeout, "--install", "--reset-values", "--disable-openapi-validation"]
        options += ["--history-max", str(HISTORY)]
        options += ["--labels", f"{PLAN}={plan}.{revision}"]
        if force and self.version >= (4,):
            options.append("--force-conflicts")
        self._run(["upgrade", release.name, *_chart(release), "--values", "-", *options], release, lock)

    def uninstall(self, release: Release, lock: int = -1) -> None:
        self._run(["uninstall", release.name, "--ignore-not-found", *self.timeout], release, lock)

    def rollback(self, release: Release, lock: int = -1) -> None:
        command = ["rollback", release.name, str(release.revision), *self.timeout, "--history-max", str(HISTORY)]
        if self.version >= (4,):
            command.append("--force-conflicts")
        self._run(command, release, lock)

    def _run(self, command: list[str], release: Release, lock: int = -1) -> str:
        """Run helm in the release's namespace; values go by stdin, the lock's descriptor goes along."""
        with self._connection(release.namespace) as (options, extra):
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_KUBE", "HELM_NAM"))}
            done = subprocess.run(
                [self.binary, *command, "--namespace", release.namespace, *options],
                input=json.dumps(release.values) if "-" in command else "",
                env={**kept, **extra, "HELM_DRIVER": "secret"},
                capture_output=True,
                text=True,
                pass_fds=[lock] if lock >= 0 else [],
                check=False,
            )
        if done.returncode < 0:
            raise HelmError(f"helm was killed by signal {-done.returncode}")
        if done.returncode:
            raise HelmError(last_words(done.stderr or done.stdout))
        return done.stdout

    @contextlib.contextmanager
    def _connection(self, namespace: str) -> Iterator[tuple[list[str], dict[str, str]]]:
        """Options and environment that give helm the same access as we have; nothing secret in either."""
        if self.kube is None:
            yield [], {}
            return
        access = self.kube.access
        if access.files and access.verify and not access.proxy:
            yield ["--kube-context", str(access.context)], {"KUBECONFIG": os.pathsep.join(access.files)}
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config"
            write_private(path, json.dumps(as_kubeconfig(access, namespace)))
            yield [], {"KUBECONFIG": str(path)}


def _chart(release: Release) -> list[str]:
    chart = [release.chart]
    if release.version:
        chart += ["--version", release.version]
    if release.repo:
        chart += ["--repo", release.repo]
    return chart


_NOISE = re.compile(
    r"^(Error: |INSTALLATION FAILED: |UPGRADE FAILED: |ROLLBACK: |execution error at \([^)]*\): |Release \S+ failed: )+"
)


def last_words(output: str) -> str:
    """What helm said went wrong, in one line, without its own preamble and warnings."""
    lines = [line.strip() for line in output.strip().splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("Error")]
    told = lines[starts[0] :] if starts else lines[-3:]
    text = " ".join(line for line in told if not line.startswith(("WARNING", "level=", "Use --debug")))
    return _NOISE.sub("", text)[:1500] or "helm failed without a word"
