"""What a server is told, by environment variables `HXMLOPS_SHARING_*`; unknown ones are refused."""

import difflib
import ipaddress
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ENVIRONMENT = "HXMLOPS_SHARING_"


class SettingsError(Exception):
    """A setting is wrong: one line that names it and what to do."""


class Settings(BaseSettings):
    """Settings of one server; each field is the environment variable of its name in capitals, prefixed."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT, extra="forbid", frozen=True)

    kind: Literal["model", "dataset"] = Field(description="which of the two APIs to serve")
    database: Path = Field(description="SQLite file; made when missing")
    store: Path = Field(description="folder for the bytes, of this database alone; made when missing")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    auth: Literal["tokens", "none"] = Field("tokens", description="`none` lets everyone do everything")
    tokens: Path | None = Field(None, description="tokens file, made by `token create`; needed unless auth is `none`")
    auth_none_beyond_loopback: bool = Field(False, description="allow `none` on an address that others can reach")

    @model_validator(mode="after")
    def _access_is_decided(self) -> Self:
        if self.auth == "tokens" and self.tokens is None:
            raise ValueError(
                f"{ENVIRONMENT}TOKENS is not set: name a tokens file, made by `python -m hxmlops_sharing token create`"
            )
        if self.auth == "none" and not (is_loopback(self.host) or self.auth_none_beyond_loopback):
            raise ValueError(
                f"{ENVIRONMENT}AUTH=none on {self.host} would let everyone who reaches it read and write: "
                f"use tokens, a loopback address, or set {ENVIRONMENT}AUTH_NONE_BEYOND_LOOPBACK=true"
            )
        return self


def read_settings(**given: Any) -> Settings:
    """Settings from the environment, `given` ones first. SettingsError in one line."""
    known = [ENVIRONMENT + name.upper() for name in Settings.model_fields]
    for name in os.environ:
        if name.startswith(ENVIRONMENT) and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise SettingsError(f"{name} is not a setting: did you mean {nearest}?")
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_one_line(problem) for problem in error.errors())) from None


def describe_settings() -> str:
    """A line for each setting: variable, default, meaning."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = " (required)" if field.is_required() else f" (default {field.default})" if field.default else ""
        lines.append(f"  {ENVIRONMENT}{name.upper()}\n      {field.description}{default}")
    return "\n".join(lines)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _one_line(problem: Any) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    return f"{ENVIRONMENT}{str(problem['loc'][0]).upper()}: {problem['msg'].lower()}"
