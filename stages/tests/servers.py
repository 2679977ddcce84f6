"""The sharing APIs of all three domains: real servers, each a process on a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hxmlops_evidence.digests import sha256_file

APIS = {"mno-production": "dataset", "mno-staging": "model", "software-vendor": "model"}


@dataclass
class SharingApis:
    """Real servers, one for each domain, shared by all tests; `tokens` holds the file that opens them all."""

    urls: dict[str, str]
    tokens: Path
    folder: Path

    def stored(self, domain: str, digest: str) -> Path:
        """The file in which a domain's API keeps the bytes with this digest."""
        [found] = (
            file
            for file in (self.folder / domain / "store").rglob("*")
            if file.is_file() and sha256_file(file) == digest
        )
        return found


@contextmanager
def sharing_apis_in(folder: Path) -> Iterator[SharingApis]:
    """Real servers, one a domain, until the block ends."""
    from hxmlops_sharing.tokens import create_token

    tokens = folder / "tokens.json"
    create_token(
        tokens, folder / "tokens" / "api.token", client="tests", scopes=["read", "write"], artifacts=["*"], days=1
    )
    urls, servers = {}, []
    try:
        for domain, kind in APIS.items():
            port = free_port()
            environment = {
                "KIND": kind,
                "PORT": str(port),
                "DATABASE": str(folder / domain / "sharing.sqlite"),
                "STORE": str(folder / domain / "store"),
                "TOKENS": str(tokens),
            }
            (folder / domain).mkdir()
            urls[domain] = f"http://127.0.0.1:{port}"
            with (folder / domain / "log").open("wb") as log:
                servers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "hxmlops_sharing", "serve"],
                        env=os.environ | {f"HXMLOPS_SHARING_{name}": value for name, value in environment.items()},
                        stderr=log,
                    )
                )
        for url in urls.values():
            wait_until_up(url)
        yield SharingApis(urls, folder / "tokens", folder)
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_until_up(url: str, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(f"{url}/api/v1/health", timeout=1):  # noqa: S310 - our own server
                return
        except OSError:
            assert time.monotonic() < deadline, f"{url} did not come up"
            time.sleep(0.05)
