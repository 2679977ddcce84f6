"""The two ways to say no, each one line that a person can act on."""

from __future__ import annotations


class Refused(Exception):
    """A gate says no.

    `criterion` is the short snake_case name of what failed, `reason` says what, where and what to do.
    `str()` gives both on one line.
    """

    def __init__(self, criterion: str, reason: str) -> None:
        self.criterion = criterion
        self.reason = one_line(reason)
        super().__init__(f"{criterion}: {self.reason}")


class BadInput(Exception):
    """What the user gave is wrong: one line that says what, where and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Text from elsewhere on one line, without control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
