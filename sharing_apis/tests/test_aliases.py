"""Aliases: named versions with a history, changed by compare-and-set."""

import httpx2 as httpx
import pytest

ALL_BACKENDS = True


@pytest.fixture
def api(models: httpx.Client) -> httpx.Client:
    """Three versions of `churn` (1 to 3) and one of `qoe` (4)."""
    for name, version in (("churn", "1.0.0"), ("churn", "1.1.0"), ("churn", "2.0.0-rc.1"), ("qoe", "1.0.0")):
        form = {"name": name, "version": version}
        assert models.post("/api/v1/model", data=form, files={"file": version.encode()}).status_code == 200
    return models


def put(api: httpx.Client, identifier: int, alias: str = "champion", **headers: str) -> httpx.Response:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.put(
        f"/api/v1/aliases/{alias}", params={"name": "churn"}, json={"identifier": identifier}, headers=fields
    )


def test_an_alias_names_a_version_and_is_found_by_it(api: httpx.Client) -> None:
    answer = put(api, 2)
    assert answer.status_code == 200
    assert (answer.json()["identifier"], answer.json()["revision"], answer.headers["etag"]) == (2, 1, '"1"')
    assert api.get("/api/v1/model/1/data", params={"version": "@champion"}).json()["version"] == "1.1.0"
    assert api.get("/api/v1/model/by_id/3", params={"version": "@champion"}).content == b"1.1.0"
    listed = api.get("/api/v1/aliases", params={"name": "churn"}).json()["aliases"]
    assert [(each["alias"], each["identifier"], each["setBy"]) for each in listed] == [("champion", 2, "anonymous")]


def test_its_history_stays(api: httpx.Client) -> None:
    for identifier in (1, 2, 2, 1):
        assert put(api, identifier).status_code == 200
    assert api.delete("/api/v1/aliases/champion", params={"name": "churn"}).status_code == 200
    history = api.get("/api/v1/aliases/champion", params={"name": "churn"}).json()["aliases"]
    assert [(each["revision"], each["identifier"]) for each in history] == [(4, None), (3, 1), (2, 2), (1, 1)]
    assert api.get("/api/v1/aliases", params={"name": "churn"}).json() == {"aliases": []}
    assert api.get("/api/v1/model/1/data", params={"version": "@champion"}).status_code == 404


def test_compare_and_set(api: httpx.Client) -> None:
    assert put(api, 1, If_None_Match="*").status_code == 200
    assert put(api, 2, If_None_Match="*").status_code == 412
    assert put(api, 2, If_Match='"1"').status_code == 200
    late = put(api, 1, If_Match='"1"')
    assert (late.status_code, late.json()["detail"]) == (412, "champion of churn has revision 2, not 1: look again")
    assert put(api, 1, If_Match="2").status_code == 400


def test_what_an_alias_cannot_be(api: httpx.Client) -> None:
    assert put(api, 4).json()["detail"] == "model 4 is qoe, not churn"
    assert put(api, 99).status_code == 404
    assert put(api, 1, alias="latest version").status_code == 422
    assert api.delete("/api/v1/aliases/none", params={"name": "churn"}).status_code == 404


def test_a_version_cannot_be_named_like_an_alias(api: httpx.Client) -> None:
    answer = api.post("/api/v1/model", data={"name": "churn", "version": "@champion"}, files={"file": b"x"})
    assert answer.status_code == 422


def test_an_alias_of_a_deleted_version_finds_nothing(api: httpx.Client) -> None:
    put(api, 2)
    api.delete("/api/v1/model/2", params={"version": "1.1.0"})
    assert api.get("/api/v1/model/1/data", params={"version": "@champion"}).status_code == 404
    api.post("/api/v1/model/2/restore")
    assert api.get("/api/v1/model/1/data", params={"version": "@champion"}).status_code == 200


def test_versions_of_a_name_the_latest_first(api: httpx.Client) -> None:
    listed = api.get("/api/v1/model/1/versions").json()["models"]
    assert [each["version"] for each in listed] == ["2.0.0-rc.1", "1.1.0", "1.0.0"]


def test_deletion_can_be_undone_until_the_place_is_taken(api: httpx.Client) -> None:
    assert api.delete("/api/v1/model/1", params={"version": "1.0.0"}).status_code == 200
    assert api.get("/api/v1/model/1/data").status_code == 404
    assert api.post("/api/v1/model/1/restore").json()["version"] == "1.0.0"
    assert api.get("/api/v1/model/by_id/1", params={"version": "1.0.0"}).content == b"1.0.0"
    api.delete("/api/v1/model/1", params={"version": "1.0.0"})
    again = api.post("/api/v1/model", data={"name": "churn", "version": "1.0.0"}, files={"file": b"other"})
    assert (again.status_code, again.json()["modelIdentifier"]) == (200, 5)
    assert api.post("/api/v1/model/1/restore").status_code == 409


def test_the_catalogue_in_pages(api: httpx.Client) -> None:
    answer = api.get("/api/v1/model_catalog", params={"limit": 3})
    found = [each["modelIdentifier"] for each in answer.json()["models"]]
    while "next" in answer.links:
        answer = api.get(answer.links["next"]["url"])
        found += [each["modelIdentifier"] for each in answer.json().get("models", [])]
    assert found == [1, 2, 3, 4]
