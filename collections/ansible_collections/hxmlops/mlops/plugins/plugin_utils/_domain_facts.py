# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What can be known of a Kubernetes domain before anything is installed in it, and what stands in the way.

Nothing is guessed: what the user may not read, or the API does not tell, is None.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._helm import Helm, HelmError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube, KubeError, ends
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._modules import METERS, Module, Place, cluster_objects

ENFORCE = "pod-security.kubernetes.io/enforce"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
# No Kubernetes component says whether a node has RAPL (Node Feature Discovery neither: its cpu-power labels are about
# Speed Select). So whoever knows says it with this label, by kubectl or by a NodeFeatureRule.
RAPL = "hxmlops.io/rapl"
THREADS = 8
SKEW_S = 5.0  # more than that, and statements and tokens get their times wrong
CERTIFICATE_DAYS = 14

# kind: (API group, resource)
RESOURCES = {
    "Secret": ("", "secrets"),
    "ConfigMap": ("", "configmaps"),
    "Service": ("", "services"),
    "PersistentVolumeClaim": ("", "persistentvolumeclaims"),
    "Deployment": ("apps", "deployments"),
    "StatefulSet": ("apps", "statefulsets"),
    "DaemonSet": ("apps", "daemonsets"),
    "Job": ("batch", "jobs"),
    "NetworkPolicy": ("networking.k8s.io", "networkpolicies"),
    "ServiceAccount": ("", "serviceaccounts"),
    "Role": ("rbac.authorization.k8s.io", "roles"),
    "RoleBinding": ("rbac.authorization.k8s.io", "rolebindings"),
}
ANY_CHART = ("ConfigMap", "Service", "NetworkPolicy")  # and Secret: Helm's records
DOMAIN_CHART = ("PersistentVolumeClaim", "Deployment", "StatefulSet", "Job")
ACCOUNT = ("ServiceAccount", "Role", "RoleBinding")
CHANGE = ("get", "create", "patch", "delete")
MORE = {"Secret": ("list", "update"), "PersistentVolumeClaim": ("list",)}
# not needed to install, but to say why something does not get ready
EXPLAIN = (("", "pods", "list"), ("", "pods/log", "get"), ("", "events", "list"))


@dataclass(frozen=True, order=True)
class Right:
    """A verb on a resource in a namespace; `needed` is False for one that only helps."""

    namespace: str
    group: str
    resource: str
    verb: str
    needed: bool = True

    def review(self) -> dict[str, Any]:
        """The SelfSubjectAccessReview that asks for it."""
        resource, _slash, subresource = self.resource.partition("/")
        attributes = {"namespace": self.namespace, "group": self.group, "verb": self.verb, "resource": resource}
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, **({"subresource": subresource} if subresource else {})}},
        }


@dataclass(frozen=True)
class Finding:
    """What stands in the way (error) or may do so (warning); `text` is one sentence with the remedy."""

    what: str
    severity: str
    text: str


@dataclass
class Facts:
    """What is known of a domain; None is unknown."""

    reachable: bool
    server: str
    version: str | None = None
    user: str | None = None
    namespaces: list[dict[str, Any]] = field(default_factory=list)
    missing_rights: list[dict[str, Any]] | None = None
    storage_class: str | None = None
    nodes: list[dict[str, Any]] | None = None
    helm: dict[str, str] | None = None
    clock_skew_s: float | None = None
    certificate_days: int | None = None
    findings: list[Finding] = field(default_factory=list)

    def error(self, what: str, text: str) -> None:
        self.findings.append(Finding(what, "error", text))

    def warning(self, what: str, text: str) -> None:
        self.findings.append(Finding(what, "warning", text))

    def result(self) -> dict[str, Any]:
        """As the Ansible module returns it."""
        return {**asdict(self), "row": row(self)}


def rights(namespace: str, modules: Iterable[Module]) -> list[Right]:
    """What installing modules in a domain takes, by the kinds in their charts and the roles that they come with."""
    found: set[Right] = {Right(namespace, *what, needed=False) for what in EXPLAIN}
    kinds: dict[str, set[str]] = {namespace: {"Secret", *ANY_CHART, *DOMAIN_CHART}}
    for module in modules:
        place = module.namespace(namespace)
        wanted = kinds.setdefault(place, {"Secret", *ANY_CHART})
        for template in sorted((module.folder / "chart" / "templates").glob("*.yaml")):
            text = template.read_text(encoding="utf-8")
            wanted |= set(re.findall(r"^kind: (\w+)", text, re.MULTILINE)) & set(RESOURCES)
            if re.search(r"^rules:", text, re.MULTILINE):  # of the library's grammar: rights of an app's own
                wanted |= set(ACCOUNT)
        # who makes a Role has to have its rights: those that prepare.yml gives to admins, beyond the built-in ones
        for granted in cluster_objects([{"module": module.name}], Place("domain", namespace)):
            labels = granted["metadata"].get("labels") or {}
            if "rbac.authorization.k8s.io/aggregate-to-admin" in labels:
                found |= {
                    Right(place, group, resource, "create")
                    for rule in granted["rules"]
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                }
    for place, wanted in kinds.items():
        for kind in wanted:
            found |= {Right(place, *RESOURCES[kind], verb) for verb in (*CHANGE, *MORE.get(kind, ()))}
    return sorted(found)


def survey(kube: Kube, namespace: str, modules: list[Module], binary: str | None) -> Facts:
    """Everything that can be known, asked side by side. Never raises for what a domain lacks."""
    facts = Facts(reachable=False, server=kube.access.server)
    try:
        _greet(kube, facts)
    except KubeError as error:
        facts.error("connection", str(error))
        return facts
    facts.reachable = True
    meters = [namespace + METERS] if any(module.data.get("privileged") for module in modules) else []
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        helm = pool.submit(_helm, kube, binary)
        user = pool.submit(_known, partial(_user, kube))
        places = [pool.submit(_namespace, kube, name) for name in (namespace, *meters)]
        classes = pool.submit(_known, partial(kube.list, "/apis/storage.k8s.io/v1/storageclasses"))
        nodes = pool.submit(_known, partial(kube.list, "/api/v1/nodes"))
        lacking = pool.submit(_lacking, kube, modules)
        asked = rights(namespace, modules)
        allowed = list(pool.map(lambda right: _known(partial(_allowed, kube, right)), asked))
        facts.user = user.result()
        facts.namespaces = [place.result() for place in places]
        facts.nodes = _nodes(nodes.result())
    _judge_namespaces(facts)
    _judge_kinds(facts, lacking.result())
    _judge_rights(facts, dict(zip(asked, allowed, strict=True)))
    _judge_storage(facts, classes.result())
    _judge_nodes(facts, meters=bool(meters))
    _judge_helm(facts, helm.result())
    _judge_times(facts, ends(kube.access))
    return facts


def _greet(kube: Kube, facts: Facts) -> None:
    """Version and clock of the server; raises KubeError where there is none, or where it knows nobody like us."""
    before = time.time()
    try:
        facts.version = kube.version()
    except KubeError as error:
        if error.status != http.client.FORBIDDEN:
            raise
    # the header is cut to seconds: half of one is the best estimate of what was cut
    date = kube.date()
    if date:
        facts.clock_skew_s = round(parsedate_to_datetime(date).timestamp() + 0.5 - (before + time.time()) / 2, 1)


def _known(ask: Callable[[], Any]) -> Any:
    """An answer, or None where the API gives none: no right to ask, or not a thing that this server has."""
    try:
        return ask()
    except KubeError:
        return None


def _user(kube: Kube) -> str:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = kube.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    return str(answer["status"]["userInfo"]["username"])


def _allowed(kube: Kube, right: Right) -> bool:
    answer = kube.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", right.review())
    return bool(answer["status"].get("allowed"))


def _namespace(kube: Kube, name: str) -> dict[str, Any]:
    try:
        found = kube.get(f"/api/v1/namespaces/{name}")
    except KubeError:
        return {"name": name, "exists": None, "pod_security": None}
    labels = (found or {}).get("metadata", {}).get("labels") or {}
    return {"name": name, "exists": found is not None, "pod_security": labels.get(ENFORCE)}


def _nodes(found: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    if found is None:
        return None
    return [
        {
            "name": node["metadata"]["name"],
            "version": node["status"].get("nodeInfo", {}).get("kubeletVersion"),
            "ready": any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in node["status"].get("conditions") or []
            ),
            "rapl": {"true": True, "false": False}.get((node["metadata"].get("labels") or {}).get(RAPL, "")),
        }
        for node in found
    ]


def _lacking(kube: Kube, modules: list[Module]) -> dict[str, list[str]]:
    """Kinds by module that prepare.yml would make, and the server does not have."""
    served: dict[str, set[str] | None] = {}
    lacking: dict[str, list[str]] = {}
    for module in modules:
        for wanted in cluster_objects([{"module": module.name}], Place("domain", "domain")):
            if wanted["kind"] != "CustomResourceDefinition":
                continue
            version = f"{wanted['spec']['group']}/{wanted['spec']['versions'][0]['name']}"
            if version not in served:
                served[version] = _known(partial(_resources, kube, version))
            known = served[version]
            if known is not None and wanted["spec"]["names"]["plural"] not in known:
                lacking.setdefault(module.name, []).append(wanted["metadata"]["name"])
    return lacking


def _resources(kube: Kube, version: str) -> set[str]:
    found = kube.get(f"/apis/{version}") or {}
    return {resource["name"] for resource in found.get("resources", [])}


def _helm(kube: Kube, binary: str | None) -> dict[str, str] | str:
    """Path and version of helm, or what is wrong with it."""
    try:
        helm = Helm(kube, binary)
    except HelmError as error:
        return str(error)
    return {"path": helm.binary, "version": ".".join(map(str, helm.version))}


def _judge_namespaces(facts: Facts) -> None:
    for place, wanted in zip(facts.namespaces, ("restricted", "privileged"), strict=False):
        name, level, label = place["name"], place["pod_security"], f"{ENFORCE}={wanted}"
        # without a label, the server's default counts: usually privileged, and nothing tells
        place["suits"] = place["exists"] and (level == wanted or (wanted == "privileged" and level is None))
        if place["exists"] is False:
            facts.error("namespace", f"namespace {name} does not exist: have an admin of the cluster run prepare.yml")
        elif place["suits"] is False and wanted == "privileged":
            facts.error(
                "pod_security",
                f"namespace {name} enforces Pod Security {level}, which keeps meters from the node: label it {label}",
            )
        elif place["suits"] is False:
            told = f"Pod Security {level}" if level else "no Pod Security level"
            facts.warning(
                "pod_security", f"namespace {name} enforces {told}, though all modules run restricted: label it {label}"
            )


def _judge_kinds(facts: Facts, lacking: dict[str, list[str]]) -> None:
    for module, kinds in lacking.items():
        facts.error(
            "kinds",
            f"the cluster lacks kinds of {module} ({_some(kinds)}): have an admin of the cluster run prepare.yml",
        )


def _judge_rights(facts: Facts, answers: dict[Right, bool | None]) -> None:
    for place in facts.namespaces:
        if place["exists"] is False:  # rights come with the namespace
            continue
        own = {right: answer for right, answer in answers.items() if right.namespace == place["name"]}
        if None in own.values():
            facts.warning(
                "rights",
                f"the server does not say what {_who(facts)} may do in namespace {place['name']}: "
                "run deploy.yml with --check",
            )
            continue
        missing = [right for right, answer in own.items() if not answer]
        facts.missing_rights = [*(facts.missing_rights or []), *(asdict(right) for right in missing)]
        needed = [right for right in missing if right.needed]
        lacks = f"{_who(facts)} may not {_verbs(needed or missing)} in namespace {place['name']}"
        if needed:
            facts.error(
                "rights",
                f"{lacks}: have an admin of the cluster run prepare.yml with this user among hxmlops_deployers",
            )
        elif missing:
            facts.warning(
                "rights",
                f"{lacks}, so failures stay unexplained: have an admin of the cluster bind the ClusterRole view there",
            )


def _who(facts: Facts) -> str:
    return f"user {facts.user}" if facts.user else "this user"


def _verbs(missing: list[Right]) -> str:
    """``create and delete jobs; list secrets``"""
    verbs: dict[str, list[str]] = {}
    for right in missing:
        verbs.setdefault(right.resource, []).append(right.verb)
    resources: dict[str, list[str]] = {}
    for resource, words in verbs.items():
        resources.setdefault(", ".join(words), []).append(resource)
    return "; ".join(f"{words} {', '.join(names)}" for words, names in resources.items())


def _judge_storage(facts: Facts, classes: list[dict[str, Any]] | None) -> None:
    if classes is None:
        return
    defaults = [
        entry["metadata"]
        for entry in classes
        if (entry["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    if defaults:  # of several the newest counts, as Kubernetes has it
        facts.storage_class = max(defaults, key=lambda metadata: metadata["creationTimestamp"])["name"]
        return
    names = ", ".join(entry["metadata"]["name"] for entry in classes) or "none"
    facts.warning(
        "storage_class",
        f"no StorageClass is the default (there are: {names}): annotate one with {DEFAULT_CLASS}=true, or give every "
        "module with data a persistence.storageClass",
    )


def _judge_nodes(facts: Facts, *, meters: bool) -> None:
    if facts.nodes is None:
        return
    down = [node["name"] for node in facts.nodes if not node["ready"]]
    if len(down) == len(facts.nodes):
        facts.error("nodes", "no node is ready, so nothing can run: see kubectl describe nodes")
    elif down:
        facts.warning("nodes", f"not ready: node {_some(down)}: see kubectl describe node {down[0]}")
    unmeasured = [node["name"] for node in facts.nodes if node["rapl"] is not True]
    if meters and unmeasured:
        facts.warning(
            "rapl",
            f"it is not known that node {_some(unmeasured)} has RAPL, without which meters measure nothing: look for "
            f"/sys/class/powercap/intel-rapl:0 there, and label the node {RAPL}=true or false",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _judge_helm(facts: Facts, found: dict[str, str] | str) -> None:
    if isinstance(found, str):
        facts.error("helm", found)
    else:
        facts.helm = found


def _judge_times(facts: Facts, end: float | None) -> None:
    skew = facts.clock_skew_s
    if skew is not None and abs(skew) > SKEW_S:
        facts.warning(
            "clock",
            f"the API server's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the controller's: "
            "set both by NTP, since tokens and signed statements bear times",
        )
    if end is not None:
        facts.certificate_days = int((end - time.time()) // 86400)
        if facts.certificate_days < CERTIFICATE_DAYS:
            facts.warning(
                "certificate", f"the client certificate ends in {facts.certificate_days} days: get a new kubeconfig"
            )


def row(facts: Facts) -> list[list[str]]:
    """Cells of a table for people: label and text; ``?`` is unknown."""
    if not facts.reachable:
        return [["server", "unreachable"]]
    place, *others = facts.namespaces
    missing = facts.missing_rights
    needed = [right for right in missing or [] if right["needed"]]
    nodes = facts.nodes
    cells = {
        "server": facts.version,
        "user": facts.user,
        "namespace": _told(place) + "".join(f", {_told(other)}" for other in others),
        "rights": None if missing is None else f"{len(needed)} missing" if needed else "ok",
        "storage": facts.storage_class,
        "nodes": nodes and f"{sum(node['ready'] for node in nodes)}/{len(nodes)} ready",
        "RAPL": nodes and _counted({True: "yes", False: "no", None: "unknown"}[node["rapl"]] for node in nodes),
        "helm": facts.helm["version"] if facts.helm else "missing",
        "clock": None if facts.clock_skew_s is None else f"{facts.clock_skew_s:+.0f} s",
        "certificate": "-" if facts.certificate_days is None else f"{facts.certificate_days} days",
    }
    return [[label, str(text or "?")] for label, text in cells.items()]


def _counted(words: Iterable[str]) -> str:
    """``2 yes, 1 unknown``"""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())


def _told(place: dict[str, Any]) -> str:
    if place["exists"] is None:
        return f"{place['name']} (?)"
    return f"{place['name']} ({place['pod_security'] or 'no level' if place['exists'] else 'missing'})"
