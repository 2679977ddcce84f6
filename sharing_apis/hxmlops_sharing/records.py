"""What goes over the wire: metadata as uploaded and changed, records as answered."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, AliasGenerator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from sqlalchemy import Row, RowMapping, Table

from hxmlops_sharing.tables import datasets, models

STATUSES = ("production", "staging", "training", "development")
SAME_STATUS = {"training": ("training", "development"), "development": ("training", "development")}
"""The served API says `training` where the published one says `development`: either finds both."""


def parse_object(value: object) -> object:
    """A JSON object from its text. ValueError for anything that JSON (RFC 8259) is not, NaN included."""
    if not isinstance(value, str | bytes):
        return value
    try:
        parsed = json.loads(value, parse_constant=_refuse_constant)
        json.dumps(parsed, ensure_ascii=False, allow_nan=False).encode()  # half a surrogate pair, 1e999
    except (ValueError, RecursionError):
        raise ValueError("should be a JSON object") from None
    if not isinstance(parsed, dict):
        raise ValueError("should be a JSON object")
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]*$"
"""No control characters, nor what cannot be seen and shows a text as another."""


def _one_line(text: str) -> str:
    if not re.fullmatch(ONE_LINE, text):
        raise ValueError("should have no control characters")
    return text


def _not_reserved(version: str) -> str:
    if version == "latest":
        raise ValueError("'latest' stands for the newest version: name this one")
    if version.startswith("@"):
        raise ValueError("'@' begins the name of an alias: name this version otherwise")
    return version


_documented = {"pattern": ONE_LINE}
Name = Annotated[str, Field(min_length=1, max_length=255, json_schema_extra=_documented), AfterValidator(_one_line)]
Version = Annotated[Name, AfterValidator(_not_reserved)]
Text = Annotated[str, Field(max_length=1000, json_schema_extra=_documented), AfterValidator(_one_line)]
Object = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value == "" else parse_object(value))]
Status = Literal["production", "staging", "training", "development"]
DataType = Literal["production", "synthetic", "mixed"]


class Wire(BaseModel):
    """Members in camelCase; the Python names are those of the columns, but for `class_`."""

    model_config = ConfigDict(alias_generator=AliasGenerator(alias=to_camel))

    def columns(self) -> dict[str, Any]:
        return {name.rstrip("_"): value for name, value in self}


class ModelMetadata(Wire):
    """A model's metadata as uploaded."""

    name: Name
    version: Version
    status: Status = "production"
    class_: Annotated[Text | None, Field(alias="class")] = None
    library: Text = ""
    library_version: Text = ""
    domain: Text = ""
    tag: Text = ""
    parameters: Object = {}
    characteristics: Object = {}


class DatasetMetadata(Wire):
    """A dataset's metadata as uploaded."""

    name: Name
    version: Version
    data_type: DataType = "production"
    tag: Text = ""
    parameters: Object = {}


class ModelChange(Wire):
    """What of a registered version may change."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    status: Status | None = None
    domain: Text | None = None
    tag: Text | None = None
    parameters: Object | None = None
    characteristics: Object | None = None


CHANGEABLE = tuple(ModelChange.model_fields)

Digest = Annotated[str, Field(examples=["sha256:" + "0" * 64], pattern=r"^sha256:[0-9a-f]{64}$")]


class ModelRecord(ModelMetadata):
    model_identifier: int
    sha256: Digest
    size: int


class DatasetRecord(DatasetMetadata):
    dataset_identifier: int
    sha256: Annotated[Digest, Field(description="digest of {dataset: sha256, dataModel: sha256}")]
    dataset_sha256: Digest
    data_model_sha256: Digest


class Models(BaseModel):
    models: list[ModelRecord]


class Datasets(BaseModel):
    datasets: list[DatasetRecord]


class ModelRegistration(ModelMetadata):
    """A model whose file was sent by tus before."""

    file: Annotated[str, Field(description="the file's id or URL below `/api/v1/files`")]
    sha256: Annotated[Digest | None, Field(description="must be the file's digest, when given")] = None


class DatasetRegistration(DatasetMetadata):
    """A dataset whose two files were sent by tus before."""

    dataset_file: Annotated[str, Field(description="the file's id or URL below `/api/v1/files`")]
    data_model_file: Annotated[str, Field(description="the file's id or URL below `/api/v1/files`")]
    dataset_sha256: Annotated[Digest | None, Field(description="must be the file's digest, when given")] = None
    data_model_sha256: Annotated[Digest | None, Field(description="must be the file's digest, when given")] = None


class AliasChange(BaseModel):
    """Which version an alias shall name."""

    model_config = ConfigDict(extra="forbid")

    identifier: Annotated[int, Field(ge=1, le=2**31 - 1)]


class AliasRecord(BaseModel):
    """What an alias names; `identifier` is null where it was removed. `revision` rises with each change."""

    alias: str
    name: str
    identifier: int | None
    revision: int
    setAt: str  # noqa: N815 (the name on the wire)
    setBy: str  # noqa: N815


class Aliases(BaseModel):
    aliases: list[AliasRecord]


class Verified(BaseModel):
    """What the server verified when the version was uploaded; null where it did not look."""

    verified: dict[str, Any] | None


class AuditLines(BaseModel):
    lines: list[dict[str, Any]]


class Health(BaseModel):
    status: Literal["UP"]


class ProblemDetails(BaseModel):
    """RFC 9457, with `detail` as v1 has it."""

    type: str
    title: str
    status: int
    detail: str
    requestId: str  # noqa: N815 (the name on the wire)


@dataclass(frozen=True)
class Kind:
    """What differs between the two APIs' records."""

    word: Literal["model", "dataset"]
    table: Table
    columns: Mapping[str, str]
    """Record member -> column, in the order of the record."""

    def record(self, row: Row[Any]) -> dict[str, Any]:
        """The record of a row. `class`, which v1's record lacks, is there only when it was given."""
        return self._members(row._mapping)

    def encoded(self, values: Mapping[str, Any]) -> bytes:
        """The same as JSON, of columns by their names, those of JSON as text."""
        record = self._members(values)
        for member in ("parameters", "characteristics"):
            if member in record:
                record[member] = msgspec.Raw(record[member])
        return msgspec.json.encode(record)

    def _members(self, values: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
        return {
            member: values[column]
            for member, column in self.columns.items()
            if member != "class" or values[column] is not None
        }


MODEL = Kind(
    "model",
    models,
    {
        "modelIdentifier": "id",
        "name": "name",
        "version": "version",
        "status": "status",
        "library": "library",
        "libraryVersion": "library_version",
        "domain": "domain",
        "tag": "tag",
        "parameters": "parameters",
        "characteristics": "characteristics",
        "class": "class",
        "sha256": "sha256",
        "size": "size",
    },
)
DATASET = Kind(
    "dataset",
    datasets,
    {
        "datasetIdentifier": "id",
        "name": "name",
        "version": "version",
        "dataType": "data_type",
        "tag": "tag",
        "parameters": "parameters",
        "sha256": "sha256",
        "datasetSha256": "dataset_sha256",
        "dataModelSha256": "data_model_sha256",
    },
)
