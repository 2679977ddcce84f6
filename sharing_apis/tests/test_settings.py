"""What a server is told: by environment and file, each wrong word refused in one line."""

import re
from pathlib import Path
from typing import Any

import pytest

from hxmlops_sharing.settings import Settings, SettingsError, describe_settings, is_loopback, read_settings

REQUIRED: dict[str, Any] = {"kind": "model", "database": "d", "store": "s", "tokens": "t"}
P = "HXMLOPS_SHARING_"


def refused(message: str, **given: Any) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings(**REQUIRED | given)
    assert str(error.value) == message


def test_the_environment_says_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    said = REQUIRED | {
        "port": "9000", "require": "signature, bom", "trust": "/keys", "formats": "onnx safetensors",
        "s3_path_style": "false", "grace_days": "1.5", "metrics_port": "9100", "max_upload_bytes": "1000",
    }  # fmt: skip
    for name, value in said.items():
        monkeypatch.setenv(P + name.upper(), str(value))
    settings = read_settings()
    assert (settings.port, settings.metrics_port, settings.grace_days) == (9000, 9100, 1.5)
    assert (settings.require, settings.formats) == (("signature", "bom"), ("onnx", "safetensors"))
    assert settings.trust == Path("/keys")
    assert settings.s3_path_style is False
    assert read_settings(port=1).port == 1  # what is given goes first


def test_a_file_says_it_too_and_the_environment_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sharing.toml"
    file.write_text(
        'kind = "dataset"\ndatabase = "d"\nstore = "s"\nauth = "none"\nport = 1\ngrace_days = 2\n'
        'require = ["signature"]\ntrust = "keys"\nformats = []\n'
    )
    monkeypatch.setenv(P + "CONFIG", str(file))
    monkeypatch.setenv(P + "PORT", "2")
    settings = read_settings(grace_days=3)
    assert (settings.kind, settings.port, settings.grace_days) == ("dataset", 2, 3)
    assert (settings.require, settings.formats) == (("signature",), ())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "{P}CONFIG {file}: No such file or directory: name a file that this user may read"),
        ("port = ", "{P}CONFIG {file} is not TOML: Invalid value (at end of document)"),
        ("prot = 1", "{file}: prot is not a setting: did you mean port?"),
        ('port = "x"', "{P}PORT: input should be a valid integer, unable to parse string as an integer"),
        ("[port]\na = 1", "{P}PORT: input should be a valid integer"),
    ],
)
def test_a_file_that_is_wrong_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, message: str
) -> None:
    file = tmp_path / "sharing.toml"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv(P + "CONFIG", str(file))
    refused(message.format(P=P, file=file))


def test_an_unknown_name_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(P + "TOKEN", "secret")
    refused(f"{P}TOKEN is not a setting: did you mean {P}TOKENS?")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"certificate": "c"},
            f"{P}CERTIFICATE and {P}PRIVATE_KEY belong together: set both or none",
        ),
        ({"client_ca": "c"}, f"{P}CLIENT_CA needs {P}CERTIFICATE and {P}PRIVATE_KEY"),
        (
            {"oidc_issuer": "https://issuer.example"},
            f"{P}OIDC_AUDIENCE is not set: without it, tokens for other services would count here",
        ),
        ({"require": "signature"}, f"{P}REQUIRE needs {P}TRUST, the folder of pinned keys"),
        ({"require": "sig", "trust": "t"}, f"{P}REQUIRE: sig is none of signature, bom, format"),
        ({"kind": "dataset", "require": "bom", "trust": "t"}, f"{P}REQUIRE: bom is none of signature"),
        ({"port": -1}, f"{P}PORT: input should be greater than or equal to 0"),
        ({"grace_days": -1}, f"{P}GRACE_DAYS: input should be greater than or equal to 0"),
        ({"upload_expiry_hours": 0}, f"{P}UPLOAD_EXPIRY_HOURS: input should be greater than 0"),
        ({"path_prefix": "models"}, f"{P}PATH_PREFIX: string should match pattern '^(/[a-za-z0-9._~-]+)*$'"),
        ({"path_prefix": "/models/"}, f"{P}PATH_PREFIX: string should match pattern '^(/[a-za-z0-9._~-]+)*$'"),
        ({"kind": "models"}, f"{P}KIND: input should be 'model' or 'dataset'"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], message: str) -> None:
    refused(message, **given)


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        read_settings(kind="x", port="y", store="s", auth="none")
    for name in ("KIND", "DATABASE", "PORT"):
        assert P + name in str(error.value)
    assert "\n" not in str(error.value)


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"):
        monkeypatch.setenv(P + name, "pa55word")
    settings = read_settings(**REQUIRED)
    assert settings.database_password.get_secret_value() == "pa55word"
    assert "pa55word" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_what_kind_of_place() -> None:
    for database, store, kinds in (
        ("records.sqlite", "store", (False, False)),
        ("postgresql://h/d", "s3://bucket/prefix", (True, True)),
    ):
        settings = read_settings(**REQUIRED | {"database": database, "store": store})
        assert (settings.on_postgresql, settings.on_s3) == kinds
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", "")))  # noqa: S104


def test_every_setting_is_described() -> None:
    text = describe_settings()
    for name, field in Settings.model_fields.items():
        assert field.description
        (line,) = re.findall(rf"^  {P}{name.upper()}\n      (.+)$", text, re.M)
        assert line.startswith(field.description)
        assert ("(required)" in line) == field.is_required()
