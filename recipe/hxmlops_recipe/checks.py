"""Reading of nested mappings with one-line errors that name the place and the nearest right word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any, NoReturn


def fail(path: str, problem: str) -> NoReturn:
    """Raise ValueError("path: problem")."""
    raise ValueError(f"{path}: {problem}")


def nearest(word: object, words: Iterable[object]) -> str:
    """' (did you mean X?)' for the most similar of `words`, or nothing when none is similar."""
    found = difflib.get_close_matches(str(word), [str(each) for each in words], n=1)
    return f" (did you mean {found[0]}?)" if found else ""


class Checked:
    """A mapping and its path in the file. Every reader raises ValueError with one line."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            fail(path, f"must be a mapping, not {_kind(value)}")
        for key in value:
            if not isinstance(key, str):
                fail(path, f'the key {key!r} must be a string; quote it: "{key}"')
        self.value: dict[str, Any] = value
        self.path = path

    def keys(self, required: Collection[str] = (), optional: Collection[str] = ()) -> Checked:
        """Refuse unknown and missing keys."""
        known = (*required, *optional)
        for key in self.value:
            if key not in known:
                hint = nearest(key, known) or f" (known: {', '.join(known)})"
                fail(f"{self.path}.{key}", f"unknown key{hint}")
        for key in required:
            if key not in self.value:
                fail(f"{self.path}.{key}", "is missing")
        return self

    def get(self, key: str) -> Any:
        return self.value[key]

    def mapping(self, key: str) -> Checked:
        return Checked(self.value[key], f"{self.path}.{key}")

    def sequence(self, key: str) -> list[Any]:
        value = self.value[key]
        if not isinstance(value, list):
            fail(f"{self.path}.{key}", f"must be a list, not {_kind(value)}")
        return list(value)

    def known(self, word: object, words: Iterable[str], what: str, path: str | None = None) -> str:
        """Answer `word` if it is one of `words`; `what` says in the error what those are."""
        names = list(words)
        if not isinstance(word, str) or word not in names:
            fail(path or f"{self.path}.{word}", f"{word!r} is not {what}{nearest(word, names)}")
        return word

    def choice(self, key: str, words: Iterable[str], what: str) -> str:
        return self.known(self.value[key], words, what, f"{self.path}.{key}")

    def names(self, key: str, words: Iterable[str], what: str) -> list[str]:
        """A list of distinct words out of `words`, at least one."""
        known = list(words)
        result = [self.known(each, known, what, f"{self.path}.{key}") for each in self.sequence(key)]
        if not result or len(set(result)) != len(result):
            fail(f"{self.path}.{key}", "list each name once, and at least one")
        return result

    def text(self, key: str) -> str:
        value = self.value[key]
        if not isinstance(value, str) or not value:
            fail(f"{self.path}.{key}", f"must be a text, not {_kind(value)}")
        return value

    def pattern(self, key: str) -> str:
        text = self.text(key)
        try:
            re.compile(text)
        except re.error as problem:
            fail(f"{self.path}.{key}", f"is not a regular expression: {problem}")
        return text

    def boolean(self, key: str, *, default: bool) -> bool:
        value = self.value.get(key, default)
        if not isinstance(value, bool):
            fail(f"{self.path}.{key}", f"must be true or false, not {_kind(value)}")
        return value

    def integer(self, key: str, *, at_least: int) -> int:
        value = self.value[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            fail(f"{self.path}.{key}", f"must be an integer of at least {at_least}")
        return value

    def number(
        self,
        key: str,
        *,
        at_least: float | None = None,
        above: float | None = None,
        at_most: float | None = None,
        below: float | None = None,
    ) -> float:
        value = self.value[key]
        path = f"{self.path}.{key}"
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or value != value
            or abs(value) == float("inf")
        ):
            fail(path, f"must be a number, not {_kind(value)}")
        limits = (
            (at_least, "at least", at_least is not None and value < at_least),
            (above, "above", above is not None and value <= above),
            (at_most, "at most", at_most is not None and value > at_most),
            (below, "below", below is not None and value >= below),
        )
        if any(broken for _, _, broken in limits):
            words = " and ".join(f"{word} {limit:g}" for limit, word, _ in limits if limit is not None)
            fail(path, f"must be {words}")
        return value


def _kind(value: object) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
