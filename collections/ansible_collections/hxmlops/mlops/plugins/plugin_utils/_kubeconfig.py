# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Which API server, and who asks: from kubeconfig files or from options, by the names that kubernetes.core uses.

Only the standard library and PyYAML: the ``kubernetes`` package takes half a second to import, more than a whole domain
with nothing to do.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._files import parse_yaml

DEFAULT = "~/.kube/config"

# option: (its type, the environment variable it falls back to)
OPTIONS: dict[str, tuple[str, str]] = {
    "kubeconfig": ("raw", "K8S_AUTH_KUBECONFIG"),
    "context": ("str", "K8S_AUTH_CONTEXT"),
    "host": ("str", "K8S_AUTH_HOST"),
    "api_key": ("str", "K8S_AUTH_API_KEY"),
    "ca_cert": ("path", "K8S_AUTH_SSL_CA_CERT"),
    "client_cert": ("path", "K8S_AUTH_CERT_FILE"),
    "client_key": ("path", "K8S_AUTH_KEY_FILE"),
    "validate_certs": ("bool", "K8S_AUTH_VERIFY_SSL"),
    "proxy": ("str", "K8S_AUTH_PROXY"),
}


class KubeconfigError(UserError):
    """A kubeconfig or a connection option is wrong; the text says which and what to do."""


@dataclass(frozen=True)
class Access:
    """How to reach one API server. Certificates and keys are PEM text."""

    where: str  # for messages: "context mno-staging of /…/config"
    server: str
    ca: str | None = None
    verify: bool = True
    tls_server_name: str | None = None
    token: str | None = None
    certificate: str | None = None
    key: str | None = None
    basic: str | None = None  # user:password
    proxy: str | None = None
    namespace: str | None = None
    impersonate: str | None = None
    files: tuple[str, ...] = ()  # kubeconfig files, when it comes from some
    context: str | None = None


def access(options: Mapping[str, Any]) -> Access:
    """The access that the options name. Raises KubeconfigError.

    As kubernetes.core has it: ``host`` with ``api_key`` or a client certificate needs no kubeconfig; otherwise the
    kubeconfig (a path, several joined by ``:``, or its content as a mapping) and its current context.
    """
    chosen = {name: _option(options, name) for name in OPTIONS}
    verify = chosen["validate_certs"]
    verify = None if verify is None else str(verify).lower() not in ("false", "no", "0", "off")
    from_options = bool(options.get("kubeconfig") or options.get("context"))
    if chosen["host"] and not from_options and (options.get("host") or not chosen["context"]):
        if not (chosen["api_key"] or chosen["client_cert"]):
            raise KubeconfigError(f"host {chosen['host']} without api_key or client_cert: give one, or a kubeconfig")
        return Access(
            where=str(chosen["host"]),
            server=str(chosen["host"]),
            ca=_read("ca_cert", chosen["ca_cert"]),
            verify=verify is not False,
            token=chosen["api_key"],
            certificate=_read("client_cert", chosen["client_cert"]),
            key=_read("client_key", chosen["client_key"]),
            proxy=chosen["proxy"],
        )
    found = from_kubeconfig(chosen["kubeconfig"], chosen["context"])
    changes: dict[str, Any] = {}
    if verify is not None:
        changes["verify"] = verify
    if chosen["proxy"]:
        changes["proxy"] = chosen["proxy"]
    return Access(**{**found.__dict__, **changes})


def _option(options: Mapping[str, Any], name: str) -> Any:
    value = options.get(name)
    return value if value not in (None, "") else os.environ.get(OPTIONS[name][1]) or None


def _read(what: str, path: str | None) -> str | None:
    if not path:
        return None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise KubeconfigError(f"{what} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KubeconfigError(f"{what} {path} is no text: PEM is needed") from None


def load(kubeconfig: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """One kubeconfig from a mapping or from files (the first to name a thing wins), and the files.

    Each named entry has a ``_folder``, against which its relative paths count.
    """
    if isinstance(kubeconfig, Mapping):
        return _merge([(dict(kubeconfig), Path.cwd() / "(given as a mapping)")]), ()
    text = str(kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT)
    paths = [Path(part).expanduser() for part in text.split(os.pathsep) if part]
    present = [path for path in paths if path.exists()]
    if not present:
        raise KubeconfigError(f"no kubeconfig at {text}: set hxmlops_kubeconfig (or KUBECONFIG) to one")
    documents = []
    for path in present:
        try:
            document = parse_yaml(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise KubeconfigError(f"kubeconfig {path}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise KubeconfigError(f"kubeconfig {path} is no YAML: {' '.join(str(error).split())}") from None
        if not isinstance(document, dict):
            raise KubeconfigError(f"kubeconfig {path} is no kubeconfig: it has no clusters, users and contexts")
        documents.append((document, path.absolute()))
    return _merge(documents), tuple(str(path) for path in present)


def _merge(documents: list[tuple[dict[str, Any], Path]]) -> dict[str, Any]:
    merged: dict[str, Any] = {"current-context": None, "clusters": {}, "users": {}, "contexts": {}}
    for document, path in documents:
        merged["current-context"] = merged["current-context"] or document.get("current-context")
        for kind, key in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
            for name, entry in _entries(document.get(kind), key):
                if name is None:
                    raise KubeconfigError(f"kubeconfig {path}: {kind} must be a list of {{name: ..., {key}: {{...}}}}")
                merged[kind].setdefault(name, {**entry, "_folder": path.parent})
    return merged


def _entries(given: Any, key: str) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Names and contents of a kubeconfig's list; no name for what is none."""
    for item in given if isinstance(given, list) else [given] if given else []:
        name = item.get("name") if isinstance(item, dict) else None
        entry = item.get(key) or {} if name not in (None, "") else None
        yield (str(name), entry) if isinstance(entry, dict) else (None, {})


def from_kubeconfig(kubeconfig: Any, context: str | None) -> Access:
    """Access by a context of a kubeconfig, its current one by default. Raises KubeconfigError."""
    merged, files = load(kubeconfig)
    source = ":".join(files) or "the given kubeconfig"
    name = str(context or merged["current-context"] or "")
    if not name:
        raise KubeconfigError(f"{source} has no current context: set hxmlops_context")
    if name not in merged["contexts"]:
        known = ", ".join(sorted(merged["contexts"])) or "none"
        raise KubeconfigError(f"{source} has no context {name}: it has {known}")
    chosen = merged["contexts"][name]
    cluster = merged["clusters"].get(str(chosen.get("cluster")))
    user = merged["users"].get(str(chosen.get("user")), {})
    if cluster is None or not cluster.get("server"):
        raise KubeconfigError(f"context {name} of {source} names cluster {chosen.get('cluster')}, which is not there")
    credentials = {**user, **_from_plugin(user, name)}
    basic = f"{user['username']}:{user.get('password', '')}" if user.get("username") else None
    return Access(
        where=f"context {name} of {source}",
        server=str(cluster["server"]),
        ca=_pem(cluster, "certificate-authority", name),
        verify=not cluster.get("insecure-skip-tls-verify", False),
        tls_server_name=cluster.get("tls-server-name"),
        token=_token_file(user, name) or credentials.get("token"),
        certificate=_pem(credentials, "client-certificate", name),
        key=_pem(credentials, "client-key", name),
        basic=basic,
        proxy=cluster.get("proxy-url"),
        namespace=chosen.get("namespace"),
        impersonate=user.get("as"),
        files=files,
        context=name,
    )


def _pem(entry: Mapping[str, Any], key: str, context: str) -> str | None:
    """PEM text of ``KEY-data`` (base64) or of the file that ``KEY`` names."""
    if entry.get(f"{key}-data"):
        try:
            # written over several lines it is base64 still, as kubectl has it
            return base64.b64decode("".join(str(entry[f"{key}-data"]).split()), validate=True).decode()
        except (binascii.Error, ValueError):
            raise KubeconfigError(f"context {context}: {key}-data is no base64: copy the kubeconfig again") from None
    if entry.get(key):
        return _read(f"context {context}: {key}", str(entry["_folder"] / str(entry[key])))
    return None


def _token_file(user: Mapping[str, Any], context: str) -> str | None:
    if not user.get("tokenFile"):
        return None
    text = _read(f"context {context}: tokenFile", str(user["_folder"] / str(user["tokenFile"])))
    return text.strip() if text else None


def _from_plugin(user: Mapping[str, Any], context: str) -> dict[str, Any]:
    """Credentials from the exec plugin that a user names (client.authentication.k8s.io)."""
    plugin = user.get("exec")
    if not plugin:
        if user.get("auth-provider"):
            raise KubeconfigError(
                f"context {context}: auth-provider was removed from Kubernetes in 1.26: use an exec plugin or a token"
            )
        return {}
    try:
        program = str(plugin["command"])
        if os.sep in program:
            program = str(user["_folder"] / program)
        command = [program, *map(str, plugin.get("args") or [])]
        extra = {str(entry["name"]): str(entry["value"]) for entry in plugin.get("env") or []}
        information = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": {"interactive": False}}
    except (KeyError, TypeError, AttributeError):
        raise KubeconfigError(
            f"context {context}: exec needs command, args, env and apiVersion: copy it again"
        ) from None
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **extra, "KUBERNETES_EXEC_INFO": json.dumps(information)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        status = dict(json.loads(done.stdout)["status"])
    except FileNotFoundError:
        raise KubeconfigError(
            f"context {context}: its exec plugin {command[0]} is not installed here: "
            f"{' '.join(str(plugin.get('installHint') or 'install it').split())}"
        ) from None
    except subprocess.CalledProcessError as error:
        told = (error.stderr or "").strip().splitlines()
        raise KubeconfigError(f"context {context}: exec plugin {command[0]}: {told[-1] if told else error}") from None
    except (subprocess.TimeoutExpired, OSError, ValueError, KeyError, TypeError):
        raise KubeconfigError(f"context {context}: exec plugin {command[0]} gave no credentials") from None
    encode = base64.b64encode
    return {
        "token": status.get("token"),
        **{
            f"{ours}-data": encode(status[theirs].encode()).decode()
            for ours, theirs in (("client-certificate", "clientCertificateData"), ("client-key", "clientKeyData"))
            if status.get(theirs)
        },
    }


def as_kubeconfig(found: Access, namespace: str) -> dict[str, Any]:
    """A kubeconfig with this one access, for programs that read nothing else."""

    def text(value: str) -> str:
        return base64.b64encode(value.encode()).decode()

    cluster: dict[str, Any] = {"server": found.server}
    if found.ca:
        cluster["certificate-authority-data"] = text(found.ca)
    if not found.verify:
        cluster["insecure-skip-tls-verify"] = True
        cluster.pop("certificate-authority-data", None)
    if found.tls_server_name:
        cluster["tls-server-name"] = found.tls_server_name
    if found.proxy:
        cluster["proxy-url"] = found.proxy
    user: dict[str, Any] = {}
    if found.token:
        user["token"] = found.token
    if found.certificate and found.key:
        user["client-certificate-data"] = text(found.certificate)
        user["client-key-data"] = text(found.key)
    if found.basic:
        user["username"], _colon, user["password"] = found.basic.partition(":")
    if found.impersonate:
        user["as"] = found.impersonate
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "domain",
        "clusters": [{"name": "domain", "cluster": cluster}],
        "users": [{"name": "domain", "user": user}],
        "contexts": [
            {"name": "domain", "context": {"cluster": "domain", "user": "domain", "namespace": namespace}},
        ],
    }
