# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Exit codes, and the mistakes that a person can mend: one sentence each, no stack trace."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OK = 0
FAILED = 1  # something failed in a domain
USAGE = 2  # the command line is wrong
CONFIGURATION = 3  # the configuration is missing or wrong, or a domain cannot be reached
INTERRUPTED = 130  # by Ctrl-C


class Mistake(Exception):
    """One sentence that says what is wrong and what to do; the command ends with its exit code."""

    exit_code = USAGE


class ConfigurationMistake(Mistake):
    """The configuration, or the kubeconfig that it comes from, is missing or wrong."""

    exit_code = CONFIGURATION


def folded(word: str) -> str:
    """A name without what people take for the same: capitals, hyphens and underscores."""
    return word.lower().replace("_", "").replace("-", "")


def nearest(word: str, known: Iterable[str]) -> str:
    """What to say of an unknown word: the nearest known one, else all of them."""
    names = {folded(name): name for name in sorted(known)}
    near = difflib.get_close_matches(folded(word), names, n=1)
    return f"did you mean {names[near[0]]}?" if near else f"known: {', '.join(names.values()) or 'none'}"
