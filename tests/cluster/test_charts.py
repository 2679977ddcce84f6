"""Every chart, with its default and with full values: as both Helm versions render it and a real API server sees it."""

from __future__ import annotations

import configparser
import itertools
import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from hxmlops_sharing.settings import ENVIRONMENT, Settings, read_settings
from tests.charts.modules import FULL, MODULES, ROLES, chart, full, module, read
from tests.cluster.clusters import Cluster, environment, tools

NAMESPACE, RELEASE, MIRROR = f"hx-charts-{uuid.uuid4().hex[:8]}", "one", "mirror.invalid:5000/all"
CASES = [(name, file) for name in MODULES for file in (None, *full(name))]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "PriorityClass",
                "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")  # fmt: skip

FIXED_NAMES = {"kubeflow_pipelines"}  # its programs look each other up by name: one of it in a namespace
UNPROBED = {"metadata-writer", "ml-pipeline-persistenceagent"}  # watchers of KFP's that answer nobody

type Objects = list[dict[str, Any]]

each_case = pytest.mark.parametrize(
    ("name", "file"), CASES, ids=[f"{name}-{file.stem if file else 'default'}" for name, file in CASES]
)


def space(name: str) -> str:
    """The namespace of a module."""
    return f"{NAMESPACE}-meters" if module(name).get("privileged") else NAMESPACE


def helm(version: str, *arguments: object, cwd: Path) -> str:
    """What helm prints; an error of it fails the test."""
    command = [str(each) for each in (tools()[version] / "helm", *arguments)]
    env = environment(HELM_CACHE_HOME=str(cwd), HELM_CONFIG_HOME=str(cwd), HELM_DATA_HOME=str(cwd))
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@cache
def rendered(name: str, file: Path | None = None, version: str = "helm4", *settings: str) -> Objects:
    """A chart's objects. `settings` are for `--set`; do not change what this answers."""
    given = [*(["-f", str(file)] if file else []), *(f"--set={setting}" for setting in settings)]
    text = helm(version, "template", RELEASE, chart(name), "-n", space(name), *given, cwd=chart(name))
    return sorted(filter(None, yaml.safe_load_all(text)), key=lambda each: (each["kind"], each["metadata"]["name"]))


def pods(objects: Objects) -> Objects:
    """The pod templates of all workloads."""
    return [each["spec"]["template"] for each in objects if each["kind"] in WORKLOADS]


def config(objects: Objects, name: str) -> dict[str, str]:
    """The files of a ConfigMap."""
    (found,) = (each for each in objects if each["kind"] == "ConfigMap" and each["metadata"]["name"] == name)
    data: dict[str, str] = found["data"]
    return data


def made_before(name: str) -> Objects:
    """What prepare.yml makes for a module, by an admin."""
    objects: Objects = []
    for file in sorted((ROLES / name / "cluster").glob("*.yml")):
        text = file.read_text().replace("{namespace}", NAMESPACE).replace("{domain}", "mno-staging")
        objects += filter(None, yaml.safe_load_all(text))
    return objects


def selects(selector: dict[str, str], pod: dict[str, Any]) -> bool:
    return all(pod["metadata"]["labels"].get(label) == value for label, value in selector.items())


@pytest.fixture(scope="module")
def staging(clusters: dict[str, Cluster]) -> Iterator[Cluster]:
    """A domain with the two namespaces in which modules lie, and nothing in them."""
    cluster, levels = clusters["mno-staging"], {NAMESPACE: "restricted", f"{NAMESPACE}-meters": "privileged"}
    for each, level in levels.items():
        cluster.namespace(each, level)
    yield cluster
    cluster.kubectl("delete", "namespace", *levels, "--wait=false")


@pytest.mark.parametrize("version", ["helm3", "helm4"])
@each_case
def test_helm_has_nothing_to_complain_of(name: str, file: Path | None, version: str, tmp_path: Path) -> None:
    helm(version, "lint", "--strict", chart(name), *(["-f", file] if file else []), cwd=tmp_path)


@each_case
def test_both_helm_versions_make_the_same_of_it(name: str, file: Path | None) -> None:
    assert rendered(name, file, "helm3") == rendered(name, file, "helm4")


@each_case
def test_a_real_cluster_admits_it(name: str, file: Path | None, staging: Cluster) -> None:
    objects = rendered(name, file)
    for account in {pod["spec"]["serviceAccountName"] for pod in pods(objects)}:  # without it a pod is refused
        staging.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}, namespace=space(name)
        )
    created = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**pod["metadata"], "name": f"pod-{number}"},
            "spec": pod["spec"],
        }
        for number, pod in enumerate(pods(objects))  # Pod Security refuses pods, not the workloads that make them
    ]
    dry_run(staging, name, [*objects, *created])


@pytest.mark.parametrize("name", [name for name in MODULES if made_before(name)])
def test_a_real_cluster_admits_what_an_admin_makes_before(name: str, staging: Cluster) -> None:
    dry_run(staging, name, made_before(name))


def dry_run(cluster: Cluster, name: str, objects: Objects) -> None:
    arguments = ("--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    cluster.kubectl("apply", "-n", space(name), *arguments, given=yaml.safe_dump_all(objects))


@each_case
def test_objects_belong_to_the_release_and_need_the_rights_of_a_namespace_only(name: str, file: Path | None) -> None:
    for each in rendered(name, file):
        assert each["kind"] not in (*CLUSTER_WIDE, "Secret")
        assert each["metadata"]["namespace"] == space(name)
        assert each["metadata"]["name"].startswith(RELEASE) or name in FIXED_NAMES
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE
        if each["kind"] == "PersistentVolumeClaim":
            assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@each_case
def test_containers_are_limited_probed_and_restricted(name: str, file: Path | None) -> None:
    for each in rendered(name, file):
        if each["kind"] not in WORKLOADS:
            continue
        pod = each["spec"]["template"]["spec"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            if not module(name).get("privileged"):
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
        if each["kind"] != "Job" and each["metadata"]["name"] not in UNPROBED:
            for container, probe in itertools.product(pod["containers"], ("startup", "readiness", "liveness")):
                assert f"{probe}Probe" in container
        assert pod["automountServiceAccountToken"] is (pod["serviceAccountName"] != "default")
        assert pod["enableServiceLinks"] is False


@each_case
def test_images_have_tags_and_come_from_one_registry(name: str, file: Path | None) -> None:
    for pod in pods(rendered(name, file, "helm4", f"global.imageRegistry={MIRROR}")):
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            assert container["image"].startswith(f"{MIRROR}/")
            _, _, tag = container["image"].removeprefix(f"{MIRROR}/").partition("@")[0].partition(":")
            assert tag not in ("", "latest")


@each_case
def test_services_and_policies_select_the_workloads(name: str, file: Path | None) -> None:
    objects = rendered(name, file)
    templates = pods(objects)
    policies = [each["spec"]["podSelector"].get("matchLabels") for each in objects if each["kind"] == "NetworkPolicy"]
    if policies or not file:
        for pod in templates:
            assert any(selector and selects(selector, pod) for selector in policies)
    for service in (each["spec"] for each in objects if each["kind"] == "Service"):
        (pod,) = (pod for pod in templates if selects(service["selector"], pod))
        named = {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["ports"]} <= named
    for pod in templates:
        scraped = pod["metadata"].get("annotations", {}).get("prometheus.io/port")
        ports = {
            str(each["containerPort"]) for container in pod["spec"]["containers"] for each in container.get("ports", [])
        }
        assert scraped in ports | {None}


def test_users_of_the_object_store_see_no_difference_between_backends() -> None:
    contracts = {
        backend: config(rendered("minio", None, "helm4", f"backend={backend}", *more), "one-s3")
        for backend, more in {
            "seaweedfs": (), "minio": (), "external": ("endpoint=https://s3.example.net", "pathStyle=false"),
        }.items()
    }  # fmt: skip
    assert contracts["seaweedfs"] == contracts["minio"]
    assert contracts["minio"]["endpoint"] == f"http://one.{NAMESPACE}.svc:9000"
    assert contracts["external"] == contracts["minio"] | {
        "endpoint": "https://s3.example.net", "host": "s3.example.net", "port": "443", "secure": "true",
        "pathStyle": "false",
    }  # fmt: skip
    assert [each["kind"] for each in rendered("minio", full("minio")[1])] == ["ConfigMap"]


def test_seaweedfs_opens_nothing_but_s3_and_metrics() -> None:
    (pod,) = pods(rendered("minio"))
    arguments = pod["spec"]["containers"][0]["args"]
    assert {"-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0", "-master.telemetry=false"} <= set(arguments)


@pytest.mark.parametrize("name", ["postgres", "timescale"])
def test_a_database_gets_its_settings_as_they_are_written(name: str) -> None:
    (pod,) = pods(rendered(name, full(name)[0]))
    assert {"max_connections=200", "autovacuum_freeze_max_age=200000000"} <= set(pod["spec"]["containers"][0]["args"])
    environment = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    mounted = {each["name"]: each["mountPath"] for each in pod["spec"]["containers"][0]["volumeMounts"]}["data"]
    # the image of 18 keeps its data below a folder of its version, that of 17 where it is told
    assert (mounted, environment.get("PGDATA")) in [
        ("/var/lib/postgresql", None),
        ("/var/lib/postgresql/data", "/var/lib/postgresql/data/pgdata"),
    ]


@pytest.mark.parametrize("name", ["minio", "pgadmin"])
def test_scripts_in_pods_are_shell(name: str) -> None:
    for pod in itertools.chain(*(pods(rendered(name, file)) for file in (None, *full(name)))):
        containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        hooks = [container.get("lifecycle", {}).get("postStart", {}).get("exec", {}) for container in containers]
        scripts = [each["command"][2] for each in (*containers, *hooks) if each.get("command", [])[:1] == ["sh"]]
        for script in scripts:
            subprocess.run(["/bin/sh", "-n"], input=script, text=True, check=True)


def test_pgadmin_knows_its_databases_and_their_passwords(tmp_path: Path) -> None:
    (file,) = full("pgadmin")
    objects = rendered("pgadmin", file)
    servers = json.loads(config(objects, "one-config")["servers.json"])["Servers"]
    assert [each["Name"] for each in servers.values()] == ["PostgreSQL", 'Archive: "old"', "By hand"]
    assert ["PassFile" in each for each in servers.values()] == [True, True, False]
    (container,) = pods(objects)[0]["spec"]["initContainers"]
    given = {each["name"]: each.get("value", r"pa:ss\word") for each in container["env"]}
    subprocess.run(
        container["command"], env=given | {"FOLDER": str(tmp_path / "a_b"), "PATH": "/usr/bin:/bin"}, check=True
    )
    passwords = tmp_path / "a_b" / ".pgpass"
    assert passwords.read_text().splitlines() == [
        r"postgres:5432:*:hxmlops:pa\:ss\\word",
        r"db.example.net:15432:*:reader:pa\:ss\\word",
    ]
    assert passwords.stat().st_mode & 0o777 == 0o600  # libpq ignores it otherwise


def test_tensorflow_serving_is_told_its_models_exactly() -> None:
    assert config(rendered("tfserving"), "one-config")["models.config"].split() == ["model_config_list", "{", "}"]
    models = config(rendered("tfserving", full("tfserving")[0]), "one-config")["models.config"]
    assert 'name: "qoe"' in models
    assert 'base_path: "/models/teams/handover"' in models
    assert "specific { versions: 1 versions: 1700000000 }" in models
    assert 'version_labels { key: "canary" value: 1700000000 }' in models
    (pod,) = pods(rendered("tfserving"))
    assert "checksum/config" not in pod["metadata"]["annotations"]  # it reads the list again by itself


def test_torchserve_keeps_its_management_to_itself_and_is_probed_as_its_tokens_allow() -> None:
    def properties(file: Path | None) -> dict[str, str]:
        parser = configparser.ConfigParser(delimiters="=")
        parser.read_string("[all]\n" + config(rendered("torchserve", file), "one-config")["config.properties"])
        return dict(parser["all"])

    open_, guarded = properties(None), properties(full("torchserve")[0])
    for each in (open_, guarded):
        assert each["management_address"] == "http://127.0.0.1:8081"
        assert each["enable_model_api"] == each["install_py_dep_per_model"] == "false"
        assert each["metrics_mode"] == "prometheus"
    assert (open_["load_models"], guarded["load_models"]) == ("all", "qoe.mar")
    assert guarded["max_request_size"] == "10000000"
    probes = [pods(rendered("torchserve", each))[0]["spec"]["containers"][0] for each in (None, full("torchserve")[0])]
    assert [next(iter(each["livenessProbe"])) for each in probes] == ["httpGet", "tcpSocket"]


def given_to(kind: str, file: Path | None) -> dict[str, str]:
    """The environment of a sharing API's container, with what Secrets and the ConfigMap of the S3 store say in it."""
    contract = config(rendered("minio", None), f"{RELEASE}-s3")
    (pod,) = pods(rendered(f"{kind}_sharing", file))
    found: dict[str, str] = {}
    for each in pod["spec"]["containers"][0]["env"]:
        source = each.get("valueFrom", {})
        value = each.get("value") or (
            contract[source["configMapKeyRef"]["key"]] if "configMapKeyRef" in source else
            f"{source['secretKeyRef']['name']}/{source['secretKeyRef']['key']}" if source else ""
        )  # fmt: skip
        found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)  # as the kubelet does
    return found


def settings_of(kind: str, file: Path | None, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the server itself makes of its environment; it refuses names that it does not know."""
    for name, value in given_to(kind, file).items():
        monkeypatch.setenv(name, value)
    return read_settings()


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize("case", [None, "", "domain", "outside"])
def test_a_sharing_api_gets_only_settings_that_it_knows(
    kind: str, case: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = None if case is None else FULL / f"{kind}_sharing.{case}.yml".replace("..", ".")
    settings = settings_of(kind, file, monkeypatch)
    assert (settings.kind, settings.auth, settings.host) == (kind, "tokens", "0.0.0.0")  # noqa: S104 - what it is told
    assert (settings.port, settings.metrics_port, settings.signing_key) == (8080, 9090, Path("/signing/signing.pem"))


def test_a_sharing_api_can_be_told_every_setting_of_the_server() -> None:
    told = {name.removeprefix(ENVIRONMENT).lower() for name in given_to("model", full("model_sharing")[0])}
    left = Settings.model_fields.keys() - told
    assert left == {"auth", "auth_none_beyond_loopback"}, "a cluster's API has tokens"
    assert told - Settings.model_fields.keys() == {"bucket", "tz"}


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_sharing_api_finds_the_database_and_the_store_of_its_domain_by_their_names(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = FULL / f"{kind}_sharing.domain.yml"
    settings = settings_of(kind, file, monkeypatch)
    assert settings.database == f"postgresql://postgres:5432/{read(chart('postgres') / 'values.yaml')['database']}"
    assert settings.store == f"s3://hxmlops/{RELEASE}"
    assert settings.s3_endpoint == f"http://{RELEASE}.{NAMESPACE}.svc:9000"
    keys = {
        settings.database_username, settings.database_password.get_secret_value(),
        settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value(),
    }  # fmt: skip
    made = {
        f"{secret['name'].format(name=name)}/{key}"
        for name in ("postgres", "minio")
        for secret in module(name)["secrets"]
        for key in secret["data"]
    }
    assert keys == made
    objects = rendered(f"{kind}_sharing", file)
    assert [each["kind"] for each in objects] == ["Deployment", "NetworkPolicy", "Service"], "no claim"
    assert objects[0]["spec"]["replicas"] == 2
    assert "strategy" not in objects[0]["spec"], "it rolls"
    names = {
        each["valueFrom"]["configMapKeyRef"]["name"]
        for each in pods(objects)[0]["spec"]["containers"][0]["env"]
        if "configMapKeyRef" in each.get("valueFrom", {})
    }
    assert names == {"minio-s3"}


@pytest.mark.parametrize("half", ["database.release=postgres", "store.release=minio"])
def test_a_sharing_api_with_one_half_outside_keeps_its_claim(half: str) -> None:
    objects = rendered("model_sharing", None, "helm4", half)
    assert "PersistentVolumeClaim" in {each["kind"] for each in objects}
    (workload,) = (each for each in objects if each["kind"] == "Deployment")
    assert workload["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["replicas=2"], "replicas: 2 needs the records in PostgreSQL"),
        (["replicas=2", "database.release=postgres"], "and the bytes in S3"),
        (["database.host=db.example.net"], "database.host needs database.existingSecret"),
        (["store.bucket=models"], "store.bucket needs store.release, or store.existingSecret"),
        (["store.endpoint=https://s3.example.net"], "store.endpoint goes with store.bucket"),
        (["store.release=minio", "store.endpoint=https://s3.example.net"], "without store.release"),
        (["tls.clientCA=true"], "tls.clientCA needs tls.existingSecret"),
        (["settings.require={bom}"], "settings.require needs trust.existingSecret"),
        (["settings.requests_per_minutes=1"], "requests_per_minutes"),
        (["settings.database=/tmp/x"], "database"),
    ],
)
def test_a_sharing_api_says_what_does_not_fit(settings: list[str], told: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(told)):
        rendered("model_sharing", None, "helm4", *settings)


def test_only_the_namespace_reaches_the_metrics_of_a_sharing_api() -> None:
    objects = {each["kind"]: each["spec"] for each in rendered("model_sharing")}
    (pod,) = pods(rendered("model_sharing"))
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == "9090"
    assert [port["port"] for port in objects["Service"]["ports"]] == [8080]
    open_, inner = objects["NetworkPolicy"]["ingress"]
    assert [port["port"] for port in open_["ports"]] == ["http"]
    assert {"ipBlock": {"cidr": "0.0.0.0/0"}} in open_["from"]
    assert inner == {"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": "metrics"}]}


def test_a_failure_to_read_an_app_is_a_failure_to_render(tmp_path: Path) -> None:
    broken = "postgres"
    for file in chart(broken).rglob("*"):
        if file.is_file():
            copy = tmp_path / file.relative_to(chart(broken))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    template = tmp_path / "templates" / "postgres.yaml"
    template.write_text(template.read_text().replace("uid: 999", "uid: [999"))
    with pytest.raises(AssertionError, match="error converting YAML"):
        helm("helm4", "template", RELEASE, tmp_path, cwd=tmp_path)
