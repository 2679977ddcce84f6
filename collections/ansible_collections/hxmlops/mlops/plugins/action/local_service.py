# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Keep a long-lived program of a domain running; see plugins/modules/local_service.py."""

from __future__ import annotations

import http.client
import socket
import time
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._action import DomainAction
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._programs import code_digests
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._supervisor import Supervisor

POLL_S = 0.05


class ActionModule(DomainAction):
    """One program under the domain's supervisord, or (state absent without a name) all of them away."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "name": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "domain_state": {"type": "path", "required": True},
        "python": {"type": "path", "required": True},
        "command": {"type": "list", "elements": "str", "default": []},
        "environment": {"type": "dict", "default": {}},
        "packages": {"type": "list", "elements": "str", "default": []},
        "folders": {"type": "list", "elements": "path", "default": []},
        "port": {"type": "int"},
        "health": {"type": "str", "default": "/health"},
        "timeout_s": {"type": "int", "default": 30},
    }

    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        supervisor = Supervisor(arguments["domain_state"], arguments["python"])
        if arguments["state"] == "absent":
            return self._absent(supervisor, arguments["name"])
        name, port = arguments["name"], arguments["port"]
        settings = {key: str(value) for key, value in arguments["environment"].items()}
        # with other code the program is started anew: its digest is part of the configuration
        code = code_digests(arguments["python"], arguments["packages"])["programs"]
        settings["HXMLOPS_CODE"] = code.removeprefix("sha256:")[:12]
        text = supervisor.text(name, [arguments["python"], *arguments["command"]], settings)
        program = supervisor.program(name)
        up = bool(program and program["statename"] in ("STARTING", "RUNNING"))
        url = f"http://127.0.0.1:{port}"
        if up and supervisor.configured(name) == text and healthy(port, arguments["health"]):
            return {"changed": False, "url": url}
        if not up and taken(port):
            raise UserError(
                f"{name}: port {port} of 127.0.0.1 is taken by another program: stop that program, or set "
                f"{name}_port (the local inventory counts its ports from HXMLOPS_PORT)"
            )
        if self.check:
            self.say(f"{name}: would start on port {port}")
            return {"changed": True, "url": url}
        for folder in arguments["folders"]:
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        supervisor.apply(name, text)
        deadline = time.monotonic() + arguments["timeout_s"]
        while not healthy(port, arguments["health"]):
            late = time.monotonic() > deadline
            if late or supervisor.crashed(name):
                what = f"not healthy on port {port} after {arguments['timeout_s']} s" if late else "it does not start"
                raise UserError(
                    f"{name}: {what}; its log {supervisor.folder / name}.log ends: {supervisor.last_line(name)}"
                )
            time.sleep(POLL_S)
        self.say(f"{name}: listens on {url}")
        return {"changed": True, "url": url}

    def _absent(self, supervisor: Supervisor, name: str | None) -> dict[str, Any]:
        if name:
            changed = supervisor.configured(name) is not None
            if changed and not self.check:
                supervisor.remove(name)
        else:
            changed = supervisor.running()
            if changed and not self.check:
                supervisor.shutdown()
        return {"changed": changed}


def healthy(port: int, path: str) -> bool:
    """True when the program answers 200 at its health path."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def taken(port: int) -> bool:
    """True when somebody listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
