"""The roles and playbooks on real API servers: what one module does, and what whole domains do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hxmlops_evidence.keys import load_signing_key
from tests.charts.modules import MODULES, ROLES, module
from tests.cluster.clusters import DOMAINS, Cluster, on_all
from tests.cluster.play import Play, TaskResult

HOST = "mno-staging"
ALONE = ("--limit", HOST)
CHANGED = {"podAnnotations": {"changed": "yes"}}  # a value that every chart has
MIRROR = "mirror.invalid:5000/all"

type Objects = dict[str, dict[str, Any]]
type Tasks = list[dict[str, Any]]


@pytest.fixture
def staging(clusters: dict[str, Cluster]) -> Cluster:
    return clusters[HOST]


@pytest.fixture
def unmade(clusters: dict[str, Cluster], play: Play, namespace: str) -> Iterator[str]:
    """The domains' namespace is one that prepare.yml has to make; removed afterwards."""
    name = f"{namespace}-new"
    play.variables["hxmlops_namespace"] = name
    yield name
    removal = ("delete", "namespace", name, f"{name}-meters", "--ignore-not-found", "--wait=false")
    on_all(clusters, lambda cluster: cluster.kubectl(*removal))


def of_release(objects: Objects, name: str) -> dict[str, str]:
    """A release's objects: `Kind/name` and uid."""
    return {
        key: each["metadata"]["uid"]
        for key, each in objects.items()
        if each["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == name
    }


def releases(tasks: list[TaskResult], host: str | None = None) -> list[tuple[str, str]]:
    """(name, action) of the releases of the tasks that install or delete."""
    return [
        (each["name"], each["action"])
        for task in tasks
        if task.action == "hxmlops.mlops.modules" and host in (None, task.host) and task.status != "skipped"
        for each in task.result["releases"]
    ]


def made_of(kind: str) -> list[str]:
    """Releases of a domain of a kind, by its role."""
    defaults = yaml.safe_load((ROLES / kind / "defaults" / "main.yml").read_text())
    return [each["module"].replace("_", "-") for each in defaults[f"{kind}_modules"]]


# -- each module, through its role -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_the_life_of_a_module(name: str, play: Play, staging: Cluster, namespace: str) -> None:
    """Created, created again, looked at, changed, deleted with its data kept, created anew on it, deleted with it."""
    release, space = name.replace("_", "-"), f"{namespace}-meters" if module(name).get("privileged") else namespace
    done_at_each: list[str] = []

    def role(tasks_from: str = "main", check_mode: bool = False, **variables: Any) -> dict[str, Any]:
        return {
            "ansible.builtin.import_role": {"name": f"hxmlops.mlops.{name}", "tasks_from": tasks_from},
            "vars": {f"{name}_{key}": value for key, value in variables.items()},
            "check_mode": check_mode,
        }

    def foretold_then_done_once(action: str, **variables: Any) -> Tasks:
        done_at_each.extend((action, action, "none"))
        return [role(check_mode=True, **variables), role(**variables), role(**variables)]

    prepare = {"hxmlops.mlops.cluster_objects": {"modules": [{"module": name}]}}
    living = play(
        [
            prepare,
            *foretold_then_done_once("install"),
            role("status"),
            role("info"),
            *foretold_then_done_once("upgrade", values=CHANGED),
        ],
        *ALONE,
    ).succeeded()
    (status,), (info,) = (
        living.results(kind)[0][key] for kind, key in (("modules_status", "releases"), ("modules_info", "modules"))
    )
    assert (status["name"], status["status"], status["ready"], status["reason"]) == (release, "deployed", True, "")
    assert (info["version"], info["ports"]) == (module(name)["version"], module(name)["ports"])
    assert yaml.safe_load(info["values"])

    alive = staging.objects(space)
    kept = {key: uid for key, uid in of_release(alive, release).items() if key.startswith(("Secret/", "Persist"))}
    assert set(kept) >= {f"Secret/{secret}" for secret in info["secrets"]}
    deleting = play(foretold_then_done_once("uninstall", state="absent"), *ALONE).succeeded()
    assert of_release(staging.objects(space), release) == kept

    gone = play(
        [
            role(),
            *foretold_then_done_once("uninstall", state="absent", delete_data=True),
        ],
        *ALONE,
    ).succeeded()
    done_at_each.insert(-3, "install")
    assert of_release(staging.objects(space), release) == {}
    tasks = [*living.tasks, *deleting.tasks, *gone.tasks]
    assert releases(tasks) == [(release, action) for action in done_at_each]
    assert [task.result["changed"] for task in tasks if task.action == "hxmlops.mlops.modules"] == [
        action != "none" for action in done_at_each
    ]


# -- whole domains -----------------------------------------------------------------------------------------------------


def test_three_domains_from_nothing_to_nothing(play: Play, clusters: dict[str, Cluster], unmade: str) -> None:
    lists = {host: made_of(host.replace("-", "_")) for host in DOMAINS}
    # an admin, once
    assert play("prepare", "--check").succeeded().changed == len(DOMAINS)
    assert play("prepare").succeeded().changed == len(DOMAINS)
    assert play("prepare").succeeded().changed == 0
    # everything at once, and again
    foretold, done, again = play("deploy", "--check"), play("deploy"), play("deploy")
    for host in DOMAINS:
        wanted = [(name, "install") for name in lists[host]]
        assert releases(foretold.succeeded().tasks, host) == releases(done.succeeded().tasks, host) == wanted
        assert releases(again.succeeded().tasks, host) == [(name, "none") for name in lists[host]]
    assert again.changed == 0
    # one value in one domain
    modules = [{"module": each.replace("-", "_")} for each in lists[HOST]]
    play.hosts[HOST]["hxmlops_modules"] = [*modules[:-1], {**modules[-1], "values": CHANGED}]
    one = play("deploy").succeeded()
    assert [each for each in releases(one.tasks) if each[1] != "none"] == [(lists[HOST][-1], "upgrade")]
    assert {host: each["changed"] for host, each in one.hosts.items()} == {host: int(host == HOST) for host in DOMAINS}
    # what runs is what images.yml lists
    listed = {
        image
        for result in play("images").succeeded().results("modules_info")
        for module in result["modules"]
        for image in module["images"]
    }
    for cluster in clusters.values():
        pods = json.loads(cluster.kubectl("get", "pods", "-n", unmade, "-o", "json"))["items"]
        running = {
            container["image"]
            for pod in pods
            for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", []))
        }
        assert running
        assert running <= listed
    # one domain, and then all, to nothing
    first, check, rest, none = (
        play("teardown", *ALONE), play("teardown", "--check"), play("teardown"), play("teardown"),
    )  # fmt: skip
    assert list(first.succeeded().hosts) == [HOST]
    for host in DOMAINS:
        wanted = [(name, "none" if host == HOST else "uninstall") for name in lists[host]]
        assert releases(check.succeeded().tasks, host) == releases(rest.succeeded().tasks, host) == wanted
    assert none.succeeded().changed == 0


@pytest.mark.usefixtures("unmade")
def test_who_has_rights_in_the_namespace_only_deploys_what_an_admin_prepared(
    play: Play, clusters: dict[str, Cluster]
) -> None:
    ana = clusters["software-vendor"].user("ana")
    admin = play.hosts["software-vendor"]["hxmlops_kubeconfig"]
    alone = ("--limit", "software-vendor")

    play.hosts["software-vendor"]["hxmlops_kubeconfig"] = str(ana)
    play("deploy", *alone).failed("ask an admin of the cluster for this right (see prepare.yml)")
    play.hosts["software-vendor"]["hxmlops_kubeconfig"] = admin
    play("prepare", *alone, hxmlops_deployers=[{"kind": "User", "name": "ana"}]).succeeded()

    play.hosts["software-vendor"]["hxmlops_kubeconfig"] = str(ana)
    assert play("deploy", *alone).succeeded().changed == 1
    assert play("deploy", *alone).succeeded().changed == 0
    assert play("energy_setup", *alone).succeeded().changed == 1
    assert (
        play("module", *alone, hxmlops_module="kepler", hxmlops_action="status")
        .succeeded()
        .results("modules_status")[0]["releases"][0]["ready"]
    )
    assert play("teardown", *alone, hxmlops_delete_data=True).succeeded().changed == 1


def test_one_module_by_playbook(play: Play, tmp_path: Path) -> None:
    values = tmp_path / "values.yml"
    values.write_text("persistence: {size: 3Gi}\n")

    def module_(action: str, *options: str, **variables: Any) -> Any:
        return play(
            "module", *ALONE, *options, hxmlops_module="postgres", hxmlops_action=action, **variables
        ).succeeded()

    assert "postgres             absent" in module_("status").output
    created = module_("create", hxmlops_values_file=str(values))
    assert releases(created.tasks) == [("postgres", "install")]
    told = module_("status")
    assert "postgres             deployed     revision 1    ready" in told.output
    assert told.results("modules_status")[0]["releases"][0]["values"]["persistence"] == {"size": "3Gi"}
    page = module_("info").output
    assert "# PostgreSQL 18.6: Relational database of a domain" in page
    assert "persistence:" in page
    assert (
        releases(module_("delete", "--check").tasks) == releases(module_("delete").tasks) == [("postgres", "uninstall")]
    )
    play("module", *ALONE, hxmlops_module="postgers", hxmlops_action="create").failed(
        "there is no module postgers: did you mean postgres?"
    )


def test_meters_prometheus_and_dashboards(play: Play, staging: Cluster, unmade: str) -> None:
    both: dict[str, Any] = {"hxmlops_meters": ["kepler", "scaphandre"]}
    play("prepare", *ALONE, **both).succeeded()
    wanted = [(name, "install") for name in ("kepler", "scaphandre", "prometheus", "grafana")]
    foretold, done, again = (play("energy_setup", *ALONE, *check, **both) for check in (["--check"], [], []))
    assert releases(foretold.succeeded().tasks) == releases(done.succeeded().tasks) == wanted
    assert again.succeeded().changed == 0
    assert {"DaemonSet/kepler", "DaemonSet/scaphandre"} <= staging.objects(f"{unmade}-meters").keys()


def test_images_to_mirror(play: Play) -> None:
    def listed(**variables: Any) -> list[str]:
        return [
            line
            for line in play("images", **variables).succeeded().output.splitlines()
            if "/" in line and " " not in line
        ]

    plain, mirrored = listed(), listed(hxmlops_image_registry=MIRROR)
    assert any(image.startswith("ghcr.io/kubeflow/kfp-driver:") for image in plain)  # no pod spec names it
    assert any("argoexec:" in image for image in plain)
    assert all(image.startswith(f"{MIRROR}/") for image in mirrored)
    assert {image.removeprefix(f"{MIRROR}/") for image in mirrored} == {image.partition("/")[2] for image in plain}


def test_a_role_for_each_kind_of_domain(play: Play) -> None:
    kinds = {host: host.replace("-", "_") for host in DOMAINS}
    tasks = [
        {
            "ansible.builtin.import_role": {"name": f"hxmlops.mlops.{kind}"},
            "when": f"inventory_hostname == '{host}'",
            "check_mode": True,
        }
        for host, kind in kinds.items()
    ]
    by_kind, by_list = play(tasks).succeeded(), play(tasks, hxmlops_modules=[{"module": "minio"}]).succeeded()
    for host, kind in kinds.items():
        assert releases(by_kind.tasks, host) == [(name, "install") for name in made_of(kind)]
        assert releases(by_list.tasks, host) == [("minio", "install")]


def test_a_domain_is_repaired_and_recovered_when_told(play: Play, staging: Cluster, namespace: str) -> None:
    modules = [{"module": "postgres"}, {"module": "minio"}]

    def deploy(**variables: Any) -> list[tuple[str, str]]:
        return releases(play("deploy", *ALONE, hxmlops_modules=modules, **variables).succeeded().tasks)

    assert deploy() == [("postgres", "install"), ("minio", "install")]
    staging.kubectl("delete", "service/postgres", "-n", namespace)
    assert deploy() == [("postgres", "none"), ("minio", "none")]
    assert deploy(hxmlops_drift="repair") == [("postgres", "repair"), ("minio", "none")]
    record = "secret/sh.helm.release.v1.minio.v1"
    staging.kubectl("label", record, "status=pending-upgrade", "--overwrite", "-n", namespace)
    play("deploy", *ALONE, hxmlops_modules=modules).failed("run again with recover: true (hxmlops_recover=true)")
    assert deploy(hxmlops_recover=True) == [("postgres", "none"), ("minio", "recover")]
    assert deploy() == [("postgres", "none"), ("minio", "none")]


def test_a_sharing_api_lives_on_the_database_and_the_store_of_its_domain(
    play: Play, staging: Cluster, namespace: str, tmp_path: Path
) -> None:
    values: dict[str, Any] = {
        "database": {"release": "records"}, "store": {"release": "minio", "bucket": "models"}, "replicas": 2,
    }  # fmt: skip
    link = {"module": "model_sharing", "needs": ["records", "minio"], "values": values}
    around = [
        {"module": "minio", "values": {"buckets": ["hxmlops", "models"]}}, {"module": "postgres", "name": "records"},
    ]  # fmt: skip
    play.hosts[HOST]["hxmlops_modules"] = [link, *around]
    assert play("deploy", *ALONE).succeeded().changed == 1
    assert play("deploy", *ALONE).succeeded().changed == 0
    objects = staging.objects(namespace)
    claims = [each["metadata"]["name"] for each in objects.values() if each["kind"] == "PersistentVolumeClaim"]
    assert sorted(claims) == ["minio", "records"]
    spec = objects["Deployment/model-sharing"]["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (2, "RollingUpdate")
    # what the containers are told is there, key by key
    told = {each["name"]: each for each in spec["template"]["spec"]["containers"][0]["env"]}
    sources = [each["valueFrom"] for each in told.values() if "valueFrom" in each]
    for source in sources:
        ((how, reference),) = source.items()
        kind = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}[how]
        assert objects[f"{kind}/{reference['name']}"]["data"][reference["key"]]
    assert len(sources) == 7
    assert told["HXMLOPS_SHARING_ISSUER"]["value"] == HOST
    tokens, signing = (staging.secret(f"model-sharing-{name}", namespace) for name in ("tokens", "signing"))
    assert tokens == {"tokens.json": "[]"}
    (tmp_path / "signing.pem").write_text(signing["signing.pem"])
    (tmp_path / "signing.pem").chmod(0o440)  # as the kubelet mounts it
    load_signing_key(tmp_path / "signing.pem")
    # a change, and one that does not fit
    play.hosts[HOST]["hxmlops_modules"] = [{**link, "values": {**values, **CHANGED}}, *around]
    changed = releases(play("deploy", *ALONE).succeeded().tasks)
    assert changed == [("model-sharing", "upgrade"), ("minio", "none"), ("records", "none")]
    assert staging.secret("model-sharing-signing", namespace) == signing
    play.hosts[HOST]["hxmlops_modules"] = [{**link, "values": {"replicas": 2}}, *around]
    play("deploy", *ALONE).failed("replicas: 2 needs the records in PostgreSQL (database.release)")


def test_mistakes_in_a_domains_list(play: Play) -> None:
    postgres: dict[str, Any] = {"module": "postgres"}
    mistakes: list[tuple[str, Tasks]] = [
        ("there is no module postgers: did you mean postgres?", [{"module": "postgers"}]),
        ("module postgres has the unknown key vaules: did you mean values?", [{**postgres, "vaules": {}}]),
        ("release postgres stands twice in the list", [postgres, postgres]),
        (
            "needs minoi, which is not in the list: did you mean minio?",
            [{**postgres, "needs": ["minoi"]}, {"module": "minio"}],
        ),
        ("postgres: values don't meet the specifications", [{**postgres, "values": {"databse": "x"}}]),
        ("its Secrets have no pasword: their keys are username, password", [{**postgres, "secrets": {"pasword": "x"}}]),
    ]
    tasks = [{"hxmlops.mlops.modules": {"modules": modules}, "ignore_errors": True} for _, modules in mistakes]
    told = play(tasks, *ALONE).succeeded()
    assert "Traceback" not in told.output
    for (words, _), result in zip(mistakes, told.results("modules"), strict=True):
        assert words in result["msg"]
