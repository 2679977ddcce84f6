"""`python -m hxmlops_model_server --serving DIR --trust DIR [--host 127.0.0.1] [--port 8080]`."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from time import monotonic

import uvicorn

from hxmlops_model_server.app import make_app
from hxmlops_model_server.loading import Loader
from hxmlops_model_server.log import log
from hxmlops_model_server.registry import Registry

BAD_INPUT = 3
GRACE_S = 8  # below the ten seconds that supervisor waits before it kills


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT, then answer what is in flight. The exit code: 0, or 3 for wrong options."""
    options = _parse(arguments)
    for name in ("serving", "trust"):
        if not getattr(options, name).is_dir():
            return _complain(f"--{name} {getattr(options, name)}: no such folder")
    try:
        listener = _listen(options.host, options.port)
    except (OSError, OverflowError) as problem:
        why = os.strerror(problem.errno or 0) if isinstance(problem, OSError) else "no such port"
        return _complain(f"cannot listen on {options.host} port {options.port}: {why}; choose another --port")
    registry = Registry(options.serving, Loader(options.trust, options.threads))
    config = uvicorn.Config(
        make_app(registry),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
    )
    # uvicorn repeats the signal that ended it once it is done; that is then no reason to die of it
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    host, port = listener.getsockname()[:2]
    log("started", host=host, port=port, serving=str(options.serving))
    start = monotonic()
    uvicorn.Server(config).run(sockets=[listener])
    log("stopped", seconds=round(monotonic() - start, 3))
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hxmlops_model_server", description=__doc__)
    parser.add_argument("--serving", type=Path, required=True, help="folder of serving.json and of the models")
    parser.add_argument("--trust", type=Path, required=True, help="folder of the pinned keys of vendor and acceptor")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on; 0: any, see the log")
    parser.add_argument("--threads", type=int, default=1, help="ONNX Runtime's threads for one request (default 1)")
    return parser.parse_args(arguments)


def _complain(reason: str) -> int:
    print(f"hxmlops_model_server: {reason}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
