"""Which version is the latest: semantic version first (semver.org, section 11), then time of arrival."""

import re

_SEMANTIC = re.compile(
    r"v?(?P<numbers>\d+(?:\.\d+){0,2})(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?",
    re.ASCII,
)


def version_key(version: str) -> str:
    """A string that sorts as versions do, by code point.

    `1` and `1.0` count as 1.0.0, a leading `v` and build metadata are left out; what is no semantic
    version sorts below all that are.
    """
    match = _SEMANTIC.fullmatch(version)
    if match is None:
        return ""
    numbers = [*match["numbers"].split("."), "0", "0"][:3]
    core = " ".join(_number(number) for number in numbers)
    if match["pre"] is None:
        return f"{core} ~"  # a release sorts above its pre-releases: ~ is above all they may contain
    return f"{core} " + "".join(f"{_identifier(each)} " for each in match["pre"].split("."))


def _number(digits: str) -> str:
    """Digits behind their count, so that 10 sorts above 9; versions of 255 characters need three digits."""
    digits = digits.lstrip("0") or "0"
    return f"{len(digits):03d}{digits}"


def _identifier(text: str) -> str:
    """Numeric identifiers sort below others."""
    return f"0{_number(text)}" if text.isdigit() else f"1{text}"
