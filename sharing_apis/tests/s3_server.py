"""A real S3 server on loopback: the program that HXMLOPS_S3_SERVER names, versitygw."""

import contextlib
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config

PROGRAM = os.environ.get("HXMLOPS_S3_SERVER", "")
on_s3 = pytest.mark.skipif(not PROGRAM, reason="HXMLOPS_S3_SERVER names no S3 server")
BUCKET = "artifacts"
REGION = "eu-test-1"


class S3Server:
    """One server over a folder; it can be killed and started again on the same port with the same keys."""

    def __init__(self, folder: Path, *, disk_mib: int | None = None, certificates: Path | None = None) -> None:
        self.folder = folder
        self.certificates = certificates
        self.disk_mib = disk_mib
        self.data = folder / "data"
        self.access_key = "HX" + secrets.token_hex(9).upper()
        self.secret_key = secrets.token_urlsafe(30)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.endpoint = f"{'https' if certificates else 'http'}://127.0.0.1:{self.port}"
        self.settings = {
            "store": f"s3://{BUCKET}",
            "s3_endpoint": self.endpoint,
            "s3_region": REGION,
            "s3_access_key": self.access_key,
            "s3_secret_key": self.secret_key,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        self.data.mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "ROOT_ACCESS_KEY": self.access_key,
            "ROOT_SECRET_KEY": self.secret_key,
        }
        command = [PROGRAM, "--port", f"127.0.0.1:{self.port}", "--region", REGION, "--quiet"]
        if self.certificates is not None:
            command += ["--cert", str(self.certificates / "server.pem"), "--key", str(self.certificates / "server.key")]
        command += ["posix", str(self.data)]
        if self.disk_mib is not None:
            mount = f'mount -t tmpfs -o size={self.disk_mib}m none "$0" && exec "$@"'
            command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, str(self.data), *command]
        with (self.folder / "s3.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        for _ in range(1000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError((self.folder / "s3.log").read_text())

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> BaseClient:
        """A client of others, to look at the bucket and to compare with."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            verify=str(self.certificates / "ca.pem") if self.certificates else None,
            config=Config(s3={"addressing_style": "path"}),
        )

    def objects(self) -> list[str]:
        """Keys of all objects in the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def unfinished(self) -> list[str]:
        """Keys of multipart uploads that were begun and neither completed nor aborted."""
        return [entry["Key"] for entry in self.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]


@contextlib.contextmanager
def running(folder: Path, *, disk_mib: int | None = None, certificates: Path | None = None) -> Iterator[S3Server]:
    """A server with the bucket BUCKET, on a disk of its own of that size if one is given (lost when it is killed)."""
    server = S3Server(folder, disk_mib=disk_mib, certificates=certificates)
    server.start()
    try:
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Settings of a store on a running server with an empty bucket."""
    with running(folder) as server:
        yield server.settings
