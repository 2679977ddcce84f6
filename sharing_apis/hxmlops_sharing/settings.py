"""What a server is told, by environment variables `HXMLOPS_SHARING_*` and a TOML file; unknown names are refused."""

import difflib
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ENVIRONMENT = "HXMLOPS_SHARING_"
FILE = ENVIRONMENT + "CONFIG"

type Words = Annotated[tuple[str, ...], NoDecode]
"""Words; in the environment with commas between them."""


class SettingsError(Exception):
    """A setting is wrong: one line that names it and what to do."""


class Settings(BaseSettings):
    """Settings of one server; each field is the environment variable of its name in capitals, prefixed."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT, extra="forbid", frozen=True)

    kind: Literal["model", "dataset"] = Field(description="which of the two APIs to serve")

    database: str = Field(description="SQLite file, made when missing, or `postgresql://HOST[:PORT]/NAME`")
    database_username: str = Field("", description="PostgreSQL: user")
    database_password: SecretStr = Field(SecretStr(""), description="PostgreSQL: password")
    store: str = Field(
        description="folder for the bytes, made when missing, or `s3://BUCKET[/PREFIX]`; of this database alone"
    )
    s3_endpoint: str = Field("", description="S3: URL of the server; without it, that of the region")
    s3_region: str = Field("us-east-1", description="S3: region")
    s3_access_key: SecretStr = Field(SecretStr(""), description="S3: access key")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="S3: secret key")
    s3_path_style: bool = Field(True, description="S3: the bucket is in the path, not in the host name")
    s3_redirect: bool = Field(False, description="S3: send clients to a presigned URL (307) instead of streaming")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    path_prefix: str = Field(
        "", pattern=r"^(/[A-Za-z0-9._~-]+)*$", description="path of this server behind a proxy, such as `/models`"
    )
    certificate: Path | None = Field(None, description="TLS: PEM file with the certificate chain")
    private_key: Path | None = Field(None, description="TLS: PEM file with the certificate's key")
    client_ca: Path | None = Field(None, description="mTLS: PEM file; clients must show a certificate of these CAs")
    metrics_port: int | None = Field(None, ge=0, le=65535, description="port for Prometheus, without TLS and tokens")
    metrics_host: str = Field("127.0.0.1", description="address for Prometheus")

    auth: Literal["tokens", "none"] = Field("tokens", description="`none` lets everyone do everything")
    tokens: Path | None = Field(None, description="tokens file, made by `token create`")
    auth_none_beyond_loopback: bool = Field(False, description="allow `none` on an address that others can reach")
    oidc_issuer: str = Field("", description="OpenID Connect: issuer of access tokens (JWT); empty for none")
    oidc_audience: str = Field("", description="OpenID Connect: audience that tokens must be for")
    oidc_jwks: str = Field("", description="OpenID Connect: file or URL of the keys; default: as the issuer says")

    requests_per_minute: int = Field(0, ge=0, description="per client, where its token says nothing; 0: no limit")
    quota_bytes: int = Field(0, ge=0, description="bytes a client may store, where its token says nothing; 0: no limit")
    max_upload_bytes: int = Field(1 << 40, ge=1, description="bytes of one upload")

    require: Words = Field((), description="refuse models without `signature`, `bom`, `format`; datasets: `signature`")
    trust: Path | None = Field(None, description="folder of pinned keys, as `hxmlops_evidence` imports cards")
    formats: Words = Field(("onnx",), description="model formats that `format` accepts")
    allow_pickles: Words = Field((), description="SHA-256 of files that may be pickles all the same")

    signing_key: Path | None = Field(None, description="PEM file, ECDSA P-256: signs receipts of downloads")
    issuer: str = Field("", description="domain that receipts are signed for; default: the host's name")

    grace_days: float = Field(30, ge=0, description="days that a deleted version can be restored")
    upload_expiry_hours: float = Field(24, gt=0, description="hours that an unfinished upload waits for its rest")
    collect_every_minutes: float = Field(60, ge=0, description="how often garbage is collected; 0: never by itself")
    catalogue: bool = Field(True, description="serve the catalogue page for people")

    @field_validator("require", "formats", "allow_pickles", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(word for word in re.split(r"[,\s]+", value) if word) if isinstance(value, str) else value

    @field_validator("database", "store", mode="before")
    @classmethod
    def _path_or_url(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.auth == "tokens" and self.tokens is None and not self.oidc_issuer:
            raise ValueError(
                f"{ENVIRONMENT}TOKENS is not set: name a tokens file, made by `python -m hxmlops_sharing token create`"
            )
        if self.auth == "none" and not (is_loopback(self.host) or self.auth_none_beyond_loopback):
            raise ValueError(
                f"{ENVIRONMENT}AUTH=none on {self.host} would let everyone who reaches it read and write: "
                f"use tokens, a loopback address, or set {ENVIRONMENT}AUTH_NONE_BEYOND_LOOPBACK=true"
            )
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError(f"{ENVIRONMENT}CERTIFICATE and {ENVIRONMENT}PRIVATE_KEY belong together: set both or none")
        if self.client_ca and not self.certificate:
            raise ValueError(f"{ENVIRONMENT}CLIENT_CA needs {ENVIRONMENT}CERTIFICATE and {ENVIRONMENT}PRIVATE_KEY")
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError(
                f"{ENVIRONMENT}OIDC_AUDIENCE is not set: without it, tokens for other services would count here"
            )
        known = ("signature", "bom", "format") if self.kind == "model" else ("signature",)
        for word in self.require:
            if word not in known:
                raise ValueError(f"{ENVIRONMENT}REQUIRE: {word} is none of {', '.join(known)}")
        if self.require and self.trust is None:
            raise ValueError(f"{ENVIRONMENT}REQUIRE needs {ENVIRONMENT}TRUST, the folder of pinned keys")
        return self

    @property
    def on_s3(self) -> bool:
        return self.store.startswith("s3://")

    @property
    def on_postgresql(self) -> bool:
        return self.database.startswith("postgresql://")


def read_settings(**given: Any) -> Settings:
    """Settings from the environment and the file that it names, `given` ones first. SettingsError in one line."""
    known = [ENVIRONMENT + name.upper() for name in Settings.model_fields]
    for name in os.environ:
        if name.startswith(ENVIRONMENT) and name not in (*known, FILE):
            raise SettingsError(f"{name} is not a setting: did you mean {_nearest(name, [*known, FILE])}?")
    in_file = _read_file(Path(os.environ[FILE])) if os.environ.get(FILE) else {}
    in_file = {name: value for name, value in in_file.items() if ENVIRONMENT + name.upper() not in os.environ}
    try:
        return Settings(**in_file | given)
    except ValidationError as error:
        raise SettingsError("; ".join(_one_line(problem) for problem in error.errors())) from None


def describe_settings() -> str:
    """A line for each setting: variable, default, meaning."""
    lines = [f"  {FILE}\n      TOML file with settings by their names in small letters; the environment goes first"]
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        default = ",".join(default) if isinstance(default, tuple) else default
        said = " (required)" if field.is_required() else f" (default {default})" if default else ""
        lines.append(f"  {ENVIRONMENT}{name.upper()}\n      {field.description}{said}")
    return "\n".join(lines)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{FILE} {path}: {error.strerror}: name a file that this user may read") from None
    except ValueError as error:
        raise SettingsError(f"{FILE} {path} is not TOML: {error}") from None
    for name in values:
        if name not in Settings.model_fields:
            raise SettingsError(
                f"{path}: {name} is not a setting: did you mean {_nearest(name, list(Settings.model_fields))}?"
            )
    return values


def _nearest(name: str, known: list[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


def _one_line(problem: Any) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    return f"{ENVIRONMENT}{str(problem['loc'][0]).upper()}: {problem['msg'].lower()}"
