# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What the collection's action plugins share: arguments checked, mistakes told in one line, progress shown.

They are action plugins because every domain is reached from the controller: a Python module would start an
interpreter for each of a run's forty tasks to find, mostly, that nothing is to be done.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._domain import Busy
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._errors import UserError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._programs import ProgramError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._workflow import WorkflowError


class DomainAction(ActionBase):  # type: ignore[misc]
    """An action that works on a domain's records from the controller, in check mode without writing."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    ARGUMENTS: ClassVar[dict[str, Any]] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, arguments = self.validate_argument_spec(argument_spec=self.ARGUMENTS)
        self.variables = task_vars or {}
        self.host = str(self.variables.get("inventory_hostname", ""))
        self.check = bool(self._task.check_mode)
        try:
            result.update(self.act(arguments))
        except (UserError, Busy, WorkflowError, ProgramError) as error:
            result.update(failed=True, msg=str(error))
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            result.update(failed=True, msg=f"{error.strerror or error}:{where}; nothing further was done")
        return result

    @abc.abstractmethod
    def act(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do the work; answer the task's result. `self.check` is check mode, `self.variables` the host's."""

    def say(self, text: str) -> None:
        """Show a line of progress."""
        Display().display(f"  [{self.host}] {text}")
