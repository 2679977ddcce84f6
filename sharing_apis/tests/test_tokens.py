"""The tokens file, and who may do what: parsed strictly, compared in constant time, noticed by the audit once."""

import asyncio
import hmac
import json
import threading
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hxmlops_sharing.access import EVERYONE, Caller, notice_grants
from hxmlops_sharing.audit import entries, verify
from hxmlops_sharing.database import Database
from hxmlops_sharing.settings import Settings, read_settings
from hxmlops_sharing.tokens import (
    MAX_NUMBER,
    SCOPES,
    Grant,
    TokensError,
    TokensFile,
    create_token,
    find,
    read_tokens,
    revoke_tokens,
    token_digest,
)

OLD = {
    "sha256": token_digest(b"t"),
    "client": "vendor",
    "scopes": ["read"],
    "artifacts": ["*"],
    "expires_at": "2030-01-01T00:00:00Z",
}
LOOK_ALIKES = (
    "\N{CYRILLIC SMALL LETTER ES}hurn",
    "\N{FULLWIDTH LATIN SMALL LETTER C}hurn",
    "churn\N{ZERO WIDTH JOINER}",
)
MORE = {"purpose": "testing", "recipient": "mno", "quota_bytes": 5, "requests_per_minute": 7}

printable = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)
grants = st.fixed_dictionaries(
    {
        "sha256": st.binary().map(token_digest),
        "client": printable,
        "scopes": st.lists(st.sampled_from(SCOPES), unique=True),
        "artifacts": st.lists(printable),
        "expires_at": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    },
    optional={
        "purpose": printable,
        "recipient": printable,
        "quota_bytes": st.integers(1, MAX_NUMBER),
        "requests_per_minute": st.integers(1, MAX_NUMBER),
    },
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_a_file_from_before_purpose_and_quota_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps([OLD, OLD | MORE]))
    old, new = read_tokens(path)
    assert (old.purpose, old.recipient, old.quota_bytes, old.requests_per_minute) == ("", "", 0, 0)
    assert (new.purpose, new.recipient, new.quota_bytes, new.requests_per_minute) == ("testing", "mno", 5, 7)


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"purpose": 1},
        {"purpose": "a\nb"},
        {"recipient": None},
        {"quota_bytes": -1},
        {"quota_bytes": True},
        {"quota_bytes": 1.0},
        {"quota_bytes": MAX_NUMBER + 1},
        {"requests_per_minute": "7"},
        {"sha256": "sha256:" + "A" * 64},
        {"sha256": token_digest(b"t") + "\n"},
        {"sha256": "\N{LATIN SMALL LETTER LONG S}ha256:" + "0" * 64},
        {"client": ""},
        {"client": "vendor\r\nX: y"},
        {"client": "\ud800"},
        {"scopes": ["root"]},
        {"scopes": "read"},
        {"scopes": [["read"]]},
        {"artifacts": "*"},
        {"artifacts": [1]},
        {"artifacts": ["churn\n"]},
        {"expires_at": "2030-01-01T00:00:00"},
        {"expires_at": "soon"},
        {"expires_at": 1900000000},
    ],
)
def test_what_is_no_grant_makes_the_whole_file_unusable(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps([OLD, OLD | change]))
    with pytest.raises(TokensError, match="is not a list of grants"):
        read_tokens(path)


@given(st.lists(grants, max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_what_is_read(tmp_path: Path, given_: list[dict[str, Any]]) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(given_))
    read = read_tokens(path)
    assert [grant.to_json() for grant in read] == given_


@given(st.binary(max_size=200) | json_values.map(json.dumps).map(str.encode))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_grants_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    try:
        assert all(isinstance(grant, Grant) for grant in read_tokens(path))
    except TokensError as error:
        said = str(error)
        assert "\n" not in said


@given(grants, st.sampled_from([*OLD, *MORE]), json_values)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_wrong_member_is_refused_and_never_crashes(
    tmp_path: Path, grant: dict[str, Any], member: str, value: Any
) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps([grant | {member: value}]))
    try:
        (read,) = read_tokens(path)
        assert find([read], token_digest(b"anything")) is None
        assert isinstance(read.expires < datetime.now(UTC), bool)
    except TokensError:
        pass


@pytest.mark.parametrize("content", ["[" * 100_000, '[{"sha256":' * 50_000, "9" * 5000, "[1e999]"])
def test_files_that_exhaust_a_parser_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(content)
    with pytest.raises(TokensError):
        read_tokens(path)


def test_every_grant_is_compared_in_constant_time_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So an answer's time says nothing about how much of a token was right, or which one it is."""
    compared: list[str] = []
    original = hmac.compare_digest

    def compare(left: str, right: str) -> bool:
        compared.append(left)
        return original(left, right)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    known = [Grant.from_json(OLD | {"sha256": token_digest(bytes([n]))}) for n in range(5)]
    for token in (b"\0", b"\4", b"wrong"):
        compared.clear()
        found = find(known, token_digest(token))
        assert (found is None) == (token == b"wrong")
        assert compared == [grant.sha256 for grant in known]


def test_create_revoke_and_two_at_once(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"

    def create(number: int) -> None:
        create_token(tokens, tmp_path / str(number), client=f"c{number}", scopes=["read"], artifacts=["*"], days=1)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {grant.client for grant in read_tokens(tokens)} == {f"c{number}" for number in range(8)}
    assert revoke_tokens(tokens, client="c3") == 1
    assert revoke_tokens(tokens, client="c3") == 0


def test_a_token_that_says_something_else_is_replaced(tmp_path: Path) -> None:
    tokens, out = tmp_path / "tokens.json", tmp_path / "token"

    def create(**more: Any) -> bool:
        return create_token(tokens, out, client="c", scopes=["read"], artifacts=["*"], days=1, **more)

    assert create()
    assert not create()
    for change in MORE.items():
        more = dict([change])
        assert create(**more), change
        assert not create(**more), change
    (grant,) = read_tokens(tokens)
    assert grant.sha256 == token_digest(out.read_bytes().strip())


@pytest.mark.parametrize("wrong", [{"client": "a\nb"}, {"purpose": "\x1b[2J"}, {"quota_bytes": -1}, {"scopes": ["x"]}])
def test_a_grant_that_cannot_be_read_back_is_not_written(tmp_path: Path, wrong: dict[str, Any]) -> None:
    words: dict[str, Any] = {"client": "c", "scopes": ["read"], "artifacts": ["*"], "days": 1} | wrong
    if words["scopes"] == ["x"]:
        create_token(tmp_path / "tokens.json", tmp_path / "token", **words)
        assert read_tokens(tmp_path / "tokens.json")[0].scopes == ()
        return
    with pytest.raises(TokensError) as refused:
        create_token(tmp_path / "tokens.json", tmp_path / "token", **words)
    assert str(refused.value).isprintable()
    assert not (tmp_path / "token").exists()


def test_a_changed_file_is_read_again_and_told(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps([OLD]))
    file = TokensFile(path)
    assert file.reads == 0
    assert len(file.grants()) == 1
    assert file.grants() is file.grants()
    assert file.reads == 1
    path.write_text(json.dumps([OLD, OLD | {"sha256": token_digest(b"u")}]))
    assert len(file.grants()) == 2
    assert file.reads == 2


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ((), set()),
        (("read",), {"read"}),
        (("annotate",), {"annotate"}),
        (("write",), {"write", "annotate"}),
        (("read", "annotate"), {"read", "annotate"}),
        (("admin",), set(SCOPES)),
    ],
)
def test_what_each_scope_includes(scopes: tuple[str, ...], allowed: set[str]) -> None:
    caller = Caller("c", frozenset(scopes), ("*",))
    assert {scope for scope in SCOPES if caller.may(scope)} == allowed


def test_a_caller_is_what_its_grant_says() -> None:
    caller = Caller.of(Grant.from_json(OLD | MORE))
    assert caller == Caller("vendor", frozenset({"read"}), ("*",), "testing", "mno", 5, 7)
    assert all(EVERYONE.may(scope) for scope in SCOPES)


@given(st.text(), st.text())
@settings(deadline=None)
def test_a_name_without_wildcards_means_itself_only(name: str, other: str) -> None:
    if any(character in name for character in "*?["):
        return
    caller = Caller("c", frozenset(), (name,))
    assert caller.sees(name)
    assert caller.sees(other) == (name == other)


@given(st.text(st.characters(exclude_characters="*?[")), st.text())
@settings(deadline=None)
def test_a_prefix_covers_names_that_begin_with_it(prefix: str, name: str) -> None:
    assert Caller("c", frozenset(), (prefix + "*",)).sees(name) == name.startswith(prefix)


@pytest.mark.parametrize("name", ["churn\n", "\nchurn", "Churn", "churn ", "churn\0", "chürn", *LOOK_ALIKES])
def test_names_that_look_alike_are_others(name: str) -> None:
    caller = Caller(
        "c", frozenset(), ("churn", "chu\N{LATIN SMALL LETTER R}n-?", unicodedata.normalize("NFD", "chürn"))
    )
    assert not caller.sees(name)


def test_no_pattern_at_all_covers_nothing() -> None:
    assert not Caller("c", frozenset({"admin"}), ()).sees("")


def settings_in(folder: Path) -> Settings:
    return read_settings(
        kind="model", auth="none", database=str(folder / "records.sqlite"), store=str(folder / "store")
    )


def lines_of(folder: Path, work: Any) -> list[dict[str, Any]]:
    """The audit's lines after `work` on a database in this folder."""

    async def run() -> list[dict[str, Any]]:
        database = Database(settings_in(folder))
        await database.open()
        try:
            await work(database)
            async with database.read() as connection:
                assert (await verify(connection)).problem is None
                return [dict(row) async for row in entries(connection)]
        finally:
            await database.close()

    return asyncio.run(run())


def test_grants_are_audited_when_they_appear_change_and_end(tmp_path: Path) -> None:
    first, second = Grant.from_json(OLD), Grant.from_json(OLD | MORE | {"sha256": token_digest(b"u"), "client": "mno"})
    wider = Grant.from_json(OLD | {"scopes": ["read", "write"]})

    async def work(database: Database) -> None:
        for grants in ([first, second], [second, first], [wider, second], [wider], [wider], []):
            await notice_grants(database, grants)

    lines = lines_of(tmp_path, work)
    assert [(line["action"], line["client"]) for line in lines] == [
        ("grant", "vendor"),
        ("grant", "mno"),
        ("revoke", "vendor"),
        ("grant", "vendor"),
        ("revoke", "mno"),
        ("revoke", "vendor"),
    ]
    assert lines[1]["detail"] == {
        "scopes": ["read"],
        "artifacts": ["*"],
        "expires_at": "2030-01-01T00:00:00Z",
        **MORE,
        "token": second.sha256.removeprefix("sha256:")[:12],
    }
    for grant in (first, second):
        assert grant.sha256.removeprefix("sha256:")[:13] not in json.dumps(lines)


def test_many_servers_notice_a_grant_once(tmp_path: Path) -> None:
    many = [
        Grant.from_json(OLD | {"sha256": token_digest(bytes([n])), "client": f"c{n}"}) for n in range(20)
    ]  # fmt: skip

    async def work(_: Database) -> None:
        def server() -> None:
            async def notice() -> None:
                own = Database(settings_in(tmp_path))
                try:
                    await notice_grants(own, many)
                finally:
                    await own.close()

            asyncio.run(notice())

        await asyncio.gather(*(asyncio.to_thread(server) for _ in range(6)))

    lines = lines_of(tmp_path, work)
    assert sorted(line["client"] for line in lines) == sorted(grant.client for grant in many)


def test_an_expired_token_stays_in_the_file_until_revoked(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    path.write_text(json.dumps([OLD | {"expires_at": past}]))
    assert TokensFile(path).grants()[0].expires < datetime.now(UTC)
