# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""The error that a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """One sentence that says what is wrong, where, and what to do."""
