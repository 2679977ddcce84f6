"""The Dataset Sharing API as its original clients call it."""

import hashlib
import io
import zipfile

import httpx2 as httpx
import pytest

from hxmlops_evidence.digests import digest_of, sha256_bytes

ALL_BACKENDS = True

DATASET = {"name": "churn", "version": "1.0.0", "dataType": "production", "tag": "churn", "parameters": '{"rows": 3}'}
BYTES = b"encrypted" * 1000
DATA_MODEL = b'{"columns": {}}'
PAIR = digest_of({"dataset": sha256_bytes(BYTES), "dataModel": sha256_bytes(DATA_MODEL)})


def upload(api: httpx.Client, *, slash: str = "/", data: bytes = BYTES, **changed: str) -> httpx.Response:
    files = {"dataModelFile": ("model.json", DATA_MODEL), "datasetFile": ("data.age", data)}
    return api.post(f"/api/v1/dataset{slash}", data=DATASET | changed, files=files)


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as entries:
        return {name: entries.read(name) for name in entries.namelist()}


@pytest.mark.parametrize("slash", ["", "/"])
def test_upload_answers_the_record_directly(datasets: httpx.Client, slash: str) -> None:
    answer = upload(datasets, slash=slash)
    assert (answer.status_code, answer.history) == (200, [])
    assert answer.json() == {
        "datasetIdentifier": 1,
        "name": "churn",
        "version": "1.0.0",
        "dataType": "production",
        "tag": "churn",
        "parameters": {"rows": 3},
        "sha256": PAIR,
        "datasetSha256": sha256_bytes(BYTES),
        "dataModelSha256": sha256_bytes(DATA_MODEL),
    }
    assert datasets.get("/api/v1/dataset/1/data").json() == answer.json()
    assert datasets.get("/api/v1/dataset_catalog/").json() == {"datasets": [answer.json()]}


@pytest.mark.parametrize("path", ["dataset/by_id/1", "dataset/by_id/1/?version=1.0.0", f"artifacts/{PAIR}"])
def test_download_is_a_zip_of_two_entries_and_always_the_same(datasets: httpx.Client, path: str) -> None:
    upload(datasets)
    answer = datasets.get(f"/api/v1/{path}")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == "attachment; filename=churn_1.0.0_files.zip"
    assert answer.headers["etag"] == f'"{PAIR}"'
    assert unzipped(answer.content) == {"dataset": BYTES, "dataModel": DATA_MODEL}
    assert hashlib.sha256(answer.content).hexdigest() == (
        hashlib.sha256(datasets.get("/api/v1/dataset/by_id/1").content).hexdigest()
    )


def test_a_range_of_the_zip(datasets: httpx.Client) -> None:
    upload(datasets)
    whole = datasets.get("/api/v1/dataset/by_id/1").content
    answer = datasets.get("/api/v1/dataset/by_id/1", headers={"Range": "bytes=20-9100"})
    assert answer.status_code == 206
    assert answer.content == whole[20:9101]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a b", "attachment; filename=\"a b_1.0.0_files.zip\"; filename*=UTF-8''a%20b_1.0.0_files.zip"),
        ('../x;"y', "attachment; filename=\".._x__y_1.0.0_files.zip\"; filename*=UTF-8''..%2Fx%3B%22y_1.0.0_files.zip"),
        ("é", "attachment; filename=\"__1.0.0_files.zip\"; filename*=UTF-8''%C3%A9_1.0.0_files.zip"),
    ],
)
def test_any_name_makes_a_harmless_file_name(datasets: httpx.Client, name: str, header: str) -> None:
    upload(datasets, name=name)
    assert datasets.get("/api/v1/dataset/by_id/1").headers["content-disposition"] == header


def test_catalogue_filters(datasets: httpx.Client) -> None:
    assert datasets.get("/api/v1/dataset_catalog").status_code == 404
    for version, data_type in (("1", "production"), ("2", "synthetic"), ("3", "mixed")):
        assert upload(datasets, version=version, dataType=data_type).status_code == 200
    for query, found in (({}, [1, 2, 3]), ({"dataType": "mixed"}, [3]), ({"version": "2", "tag": "churn"}, [2])):
        answer = datasets.get("/api/v1/dataset_catalog", params=query)
        assert [record["datasetIdentifier"] for record in answer.json()["datasets"]] == found


def test_an_equal_upload_is_a_retry_and_another_is_refused(datasets: httpx.Client) -> None:
    first = upload(datasets).json()
    assert upload(datasets).json() == first
    assert upload(datasets, data=b"other").status_code == 409
    assert upload(datasets, tag="other").status_code == 409


def test_delete_removes_the_bytes_that_no_other_version_has(datasets: httpx.Client) -> None:
    record = upload(datasets).json()
    upload(datasets, version="2", data=b"other")  # its data model is the same
    assert datasets.delete("/api/v1/dataset/1?version=1.0.0").json() == record
    assert datasets.get(f"/api/v1/artifacts/{PAIR}").status_code == 404
    assert unzipped(datasets.get("/api/v1/dataset/by_id/2").content) == {"dataset": b"other", "dataModel": DATA_MODEL}


@pytest.mark.parametrize("missing", ["datasetFile", "dataModelFile"])
def test_both_files_are_required(datasets: httpx.Client, missing: str) -> None:
    files = {"dataModelFile": b"{}", "datasetFile": b"x"}
    del files[missing]
    answer = datasets.post("/api/v1/dataset", data=DATASET, files=files)
    assert (answer.status_code, answer.json()["detail"]) == (422, f"{missing}: field required, as a file")


def test_octets_are_415(datasets: httpx.Client) -> None:
    assert datasets.post("/api/v1/dataset", params=DATASET, content=b"x").status_code == 415
