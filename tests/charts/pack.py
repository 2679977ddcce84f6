"""Put what the charts have in common into each: the library chart, packed, and the common parts of the values' schema.

A twin gets the templates, values and schema of the other too: the two charts differ by their names alone. What the
sharing APIs take as `settings` is in their schema as in the server's own settings.

`make charts` writes; `--check` only says which file differs. The archive is the same for the same files: no times, no
owners, sorted names.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import tarfile
from pathlib import Path

import yaml

from hxmlops_sharing.settings import Settings

COLLECTION = Path(__file__).resolve().parents[2] / "collections" / "ansible_collections" / "hxmlops" / "mlops"
LIBRARY = COLLECTION / "charts" / "library"
COMMON = "common.schema.json"
TWINS = {"dataset_sharing": "model_sharing"}
SHARING = "model_sharing"
DECIDED = {
    "kind", "host", "port", "metrics_host", "metrics_port", "auth", "auth_none_beyond_loopback", "tokens",
    "database", "database_username", "database_password", "store", "s3_endpoint", "s3_region", "s3_access_key",
    "s3_secret_key", "s3_path_style", "certificate", "private_key", "client_ca", "signing_key", "issuer", "trust",
}  # fmt: skip
"""Settings of the sharing APIs that their chart decides, or has values of its own for."""


def packed() -> bytes:
    """The library chart as `helm package` would make it, but reproducible."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for file in sorted(LIBRARY.rglob("*")):
            if file.is_file() and file.suffix in (".yaml", ".tpl"):
                entry = tarfile.TarInfo(f"library/{file.relative_to(LIBRARY).as_posix()}")
                content = file.read_bytes()
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def schema(chart: Path) -> bytes:
    """The chart's values.schema.json with the common properties as they are now; its own come first."""
    common = json.loads((LIBRARY / COMMON).read_text())
    values = yaml.safe_load((chart / "values.yaml").read_text())
    own = json.loads((chart / "values.schema.json").read_text())
    properties = {name: value for name, value in own["properties"].items() if name not in common}
    if chart.parent.name == SHARING:
        properties["settings"] = settings()
    properties |= {name: value for name, value in common.items() if name in values}
    # Helm itself adds this one, for the library chart
    properties["library"] = {"type": "object", "description": "Not for use."}
    used = re.findall(r'"#/definitions/(\w+)"', json.dumps(properties))
    definitions = own.get("definitions", {}) | {name: value for name, value in common.items() if name in used}
    document = {**own, **({"definitions": definitions} if definitions else {}), "properties": properties}
    return (json.dumps(document, indent=2) + "\n").encode()


def settings() -> dict[str, object]:
    """Schema of the sharing APIs' `settings`: those that the chart leaves to its users, as the server has them."""
    kept = ("type", "pattern", "minimum", "maximum", "exclusiveMinimum", "items", "description")
    document = Settings.model_json_schema()
    fields = document["properties"]
    for field in fields.values():
        field |= document["$defs"][field["$ref"].split("/")[-1]] if "$ref" in field else {}
    return {
        "type": "object",
        "description": "More settings of the server, by the names that `python -m hxmlops_sharing serve --help` has.",
        "properties": {
            name: {key: value for key, value in field.items() if key in kept}
            for name, field in fields.items()
            if name not in DECIDED
        },
        "additionalProperties": False,
    }


def wanted() -> dict[Path, bytes]:
    """Every file that this program writes, with the content it should have."""
    version = yaml.safe_load((LIBRARY / "Chart.yaml").read_text())["version"]
    files = {}
    for chart in charts():
        files[chart / "charts" / f"library-{version}.tgz"] = packed()
        if chart.parent.name not in TWINS:
            files[chart / "values.schema.json"] = schema(chart)
    for twin, other in TWINS.items():
        source, target = COLLECTION / "roles" / other / "chart", COLLECTION / "roles" / twin / "chart"
        for file in (source / "values.yaml", source / "values.schema.json", *sorted(source.glob("templates/*"))):
            content = files.get(file) or file.read_bytes()
            files[target / file.relative_to(source)] = content.replace(other.encode(), twin.encode())
    return files


def charts() -> list[Path]:
    """The folder of each module's chart."""
    return sorted(path.parent for path in COLLECTION.glob("roles/*/chart/Chart.yaml"))


def same(path: Path, content: bytes) -> bool:
    """Archives are compared unpacked, as zlibs differ."""
    if path.suffix == ".tgz":
        return gzip.decompress(path.read_bytes()) == gzip.decompress(content)
    return path.read_bytes() == content


def main() -> int:
    files = wanted()
    differing = [path for path, content in files.items() if not path.exists() or not same(path, content)]
    if "--check" in sys.argv[1:]:
        for path in differing:
            print(f"{path.relative_to(COLLECTION)} is not what charts/library makes it: run `make charts`")
        return 1 if differing else 0
    for path in differing:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[path])
        print(path.relative_to(COLLECTION))
    return 0


if __name__ == "__main__":
    sys.exit(main())
