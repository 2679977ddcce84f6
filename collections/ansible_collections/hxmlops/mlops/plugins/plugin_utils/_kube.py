# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""A small client of the Kubernetes API: JSON over one kept connection for each thread, errors as one sentence."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import ssl
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kubeconfig import Access

METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
FIELD_MANAGER = "hxmlops"
TIMEOUT_S = 30.0
PAGE = 500


class KubeError(UserError):
    """The API server did not do what was asked; the text says what, where and, if known, what to do.

    `status` is the HTTP status, or None when there was no answer; `reason` the API's own word, such as AlreadyExists.
    """

    def __init__(self, text: str, status: int | None = None, reason: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


class Kube:
    """One API server as one user."""

    def __init__(self, access: Access) -> None:
        self.access = access
        try:
            self._server = urllib.parse.urlsplit(access.server if "//" in access.server else f"https://{access.server}")
            usable = self._server.scheme in ("https", "http") and self._server.hostname and self._server.port != 0
        except ValueError:  # a port that is no number, a bracket too few
            usable = False
        if not usable:
            raise KubeError(f"{access.where}: {access.server} is no API server's address: https://HOST:PORT is needed")
        self._context = _tls(access) if self._server.scheme == "https" else None
        self._kept = threading.local()
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}
        self._headers = {"Accept": "application/json", "User-Agent": "hxmlops"}
        if access.token:
            self._headers["Authorization"] = f"Bearer {access.token}"
        elif access.basic:
            self._headers["Authorization"] = "Basic " + base64.b64encode(access.basic.encode()).decode()
        if access.impersonate:
            self._headers["Impersonate-User"] = access.impersonate

    # -- requests ---------------------------------------------------------------------------------------------------

    def get(self, path: str, **query: Any) -> Any:
        """The object or list at a path, or None where there is none (404)."""
        return self._unless_missing("GET", path, query)

    def list(self, path: str, *, metadata: bool = False, **query: Any) -> list[dict[str, Any]]:
        """All items of a list, page by page; with `metadata`, only their metadata."""
        items: list[dict[str, Any]] = []
        accept = {"Accept": METADATA} if metadata else {}
        while True:
            page = self.request("GET", path, {**query, "limit": PAGE}, headers=accept)
            items += page.get("items") or []
            query["continue"] = page.get("metadata", {}).get("continue")
            if not query["continue"]:
                return items

    def text(self, path: str, **query: Any) -> str:
        """A plain answer, such as a container's log."""
        return self._raw("GET", path, query, None, {"Accept": "*/*"}).decode(errors="replace")

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object in the collection at `path`."""
        created: dict[str, Any] = self.request("POST", path, {}, body)
        return created

    def merge(self, path: str, body: dict[str, Any], **query: Any) -> Any:
        """JSON merge patch of the object at `path`; None where there is none."""
        return self._unless_missing("PATCH", path, query, body, {"Content-Type": "application/merge-patch+json"})

    def apply(
        self, thing: dict[str, Any], *, namespace: str, manager: str = FIELD_MANAGER, dry_run: bool = False
    ) -> dict[str, Any]:
        """Server-side apply, taking over fields of others; with `dry_run` only the answer."""
        query = {"fieldManager": manager, "force": "true", "dryRun": "All" if dry_run else None}
        path = self.path_of(thing, namespace)
        applied: dict[str, Any] = self.request(
            "PATCH", path, query, thing, headers={"Content-Type": "application/apply-patch+yaml"}
        )
        return applied

    def delete(self, path: str) -> bool:
        """Delete the object at `path`, what depends on it in the background; False where there is none."""
        return self._unless_missing("DELETE", path, {"propagationPolicy": "Background"}) is not None

    def version(self) -> str:
        """Version of the API server, such as ``v1.36.3``."""
        try:
            return str(self.request("GET", "/version", {})["gitVersion"])
        except (KeyError, TypeError):
            raise self._no_api_server() from None

    def path_of(self, thing: dict[str, Any], namespace: str) -> str:
        """Path of an object as a manifest has it; `namespace` where the manifest names none."""
        version, kind, name = thing["apiVersion"], thing["kind"], thing["metadata"]["name"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if version not in self._resources:
            found = self.get(root) or {}
            self._resources[version] = {
                entry["kind"]: (entry["name"], entry["namespaced"])
                for entry in found.get("resources", [])
                if "/" not in entry["name"]
            }
        if kind not in self._resources[version]:
            raise KubeError(f"{self.access.where}: the cluster knows no {kind} of {version}", 404, "UnknownKind")
        plural, namespaced = self._resources[version][kind]
        inside = f"/namespaces/{thing['metadata'].get('namespace') or namespace}" if namespaced else ""
        return f"{root}{inside}/{plural}/{urllib.parse.quote(name)}"

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        body: dict[str, Any] | None = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """One request with a JSON answer. Raises KubeError."""
        data = self._raw(method, path, query, body, headers or {})
        try:
            return json.loads(data or b"null")
        except ValueError:
            raise self._no_api_server() from None

    def date(self) -> str | None:
        """The server's clock: the Date header of its last answer in this thread."""
        return getattr(self._kept, "date", None)

    def _unless_missing(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        try:
            return self.request(method, path, query, body, headers=headers)
        except KubeError as error:
            if error.status == http.client.NOT_FOUND:
                return None
            raise

    def _raw(
        self, method: str, path: str, query: dict[str, Any], body: dict[str, Any] | None, headers: dict[str, str]
    ) -> bytes:
        asked = urllib.parse.urlencode({name: value for name, value in query.items() if value is not None})
        target = self._server.path.rstrip("/") + path + (f"?{asked}" if asked else "")
        content = None if body is None else json.dumps(body).encode()
        sent = {**self._headers, **({"Content-Type": "application/json"} if content else {}), **headers}
        for last in (False, True):
            kept = getattr(self._kept, "connection", None)
            connection = kept or self._connection()
            try:
                connection.request(method, target, content, sent)
                answer = connection.getresponse()
                data: bytes = answer.read()
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                self._kept.connection = None
                # a connection kept from before may have been closed by the server meanwhile
                if kept and not last and isinstance(error, (http.client.HTTPException, ConnectionError)):
                    continue
                raise KubeError(self._unreachable(error)) from None
            self._kept.connection = connection
            self._kept.date = answer.headers.get("Date")
            if answer.status >= http.client.BAD_REQUEST:
                raise self._refused(answer.status, data)
            return data
        raise AssertionError("unreachable")

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._server.hostname or "", self._server.port
        if self.access.proxy:
            proxy = urllib.parse.urlsplit(self.access.proxy)
            if proxy.scheme not in ("http", ""):
                raise KubeError(f"{self.access.where}: proxy {self.access.proxy}: only http:// proxies are supported")
            through = http.client.HTTPSConnection(
                proxy.hostname or "", proxy.port, timeout=TIMEOUT_S, context=self._context
            )
            through.set_tunnel(host, port or 443)
            return through
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        name = self.access.tls_server_name
        if name:
            return _Named(host, port, timeout=TIMEOUT_S, context=self._context, server_name=name)
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=self._context)

    # -- errors -----------------------------------------------------------------------------------------------------

    def _no_api_server(self) -> KubeError:
        return KubeError(f"{self.access.where}: {self.access.server} answers, but is no API server: mend the address")

    def _unreachable(self, error: Exception) -> str:
        place = f"{self.access.where}: {self.access.server}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{place}: its certificate is not trusted ({error.verify_message}): set the cluster's CA certificate"
        if isinstance(error, ssl.SSLError) and "CERTIFICATE_EXPIRED" in str(error):
            return f"{place}: the client certificate {expiry(self.access)}: get a new kubeconfig"
        if isinstance(error, socket.gaierror):
            return f"{place}: this host name is not known here: check the kubeconfig, DNS or VPN"
        if isinstance(error, ConnectionRefusedError):
            return f"{place}: nothing listens there: start the API server, or mend the address in the kubeconfig"
        if isinstance(error, TimeoutError):
            return f"{place}: no answer within {TIMEOUT_S:.0f} s: check network, VPN and firewall"
        return f"{place}: no connection ({error or type(error).__name__}): is the API server up?"

    def _refused(self, status: int, data: bytes) -> KubeError:
        try:
            told = json.loads(data)
            message, reason = str(told.get("message") or ""), str(told.get("reason") or "")
        except (ValueError, AttributeError):
            message, reason = data.decode(errors="replace").strip()[:300], ""
        if status == http.client.UNAUTHORIZED:
            when = expiry(self.access)
            why = f"its client certificate {when}" if when else "they are wrong, revoked or expired"
            return KubeError(
                f"{self.access.where}: the server does not accept these credentials ({why}): get a new kubeconfig",
                status,
                reason,
            )
        if status == http.client.FORBIDDEN and "is forbidden: User" in message:
            return KubeError(
                f"{self.access.where}: {message}: ask an admin of the cluster for this right (see prepare.yml)",
                status,
                reason,
            )
        return KubeError(f"{self.access.where}: {message or f'HTTP {status}'}", status, reason)


class _Named(http.client.HTTPSConnection):
    """A connection to a server whose certificate bears another name than its address (tls-server-name)."""

    def __init__(self, *args: Any, server_name: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._name = server_name
        self._tls: ssl.SSLContext = options["context"]

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self._name)


def _tls(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=access.ca) if access.ca else ssl.create_default_context()
        if not access.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if access.certificate and access.key:
            with _file(access.certificate + "\n" + access.key) as path:
                context.load_cert_chain(path)
    except ssl.SSLError as error:
        raise KubeError(f"{access.where}: its certificates cannot be read ({error.reason}): copy it again") from None
    return context


@contextlib.contextmanager
def _file(text: str) -> Iterator[str]:
    """A file that only this user reads, for calls that take no text; gone afterwards."""
    handle, name = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        yield name
    finally:
        Path(name).unlink()


def ends(access: Access) -> float | None:
    """When an access's client certificate ends, in seconds since 1970; None when it has none."""
    if not access.certificate:
        return None
    with _file(access.certificate) as path:
        try:
            # the ssl module decodes certificates, but offers it for a peer's only
            decoded = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
        except ssl.SSLError:
            return None
    return ssl.cert_time_to_seconds(decoded["notAfter"])


def expiry(access: Access) -> str:
    """``expired on <date>`` when the client certificate of an access is out of date, else an empty text."""
    end = ends(access)
    if end is None or end >= time.time():
        return ""
    return f"expired on {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(end))}"
