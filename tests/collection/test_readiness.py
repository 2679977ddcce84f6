"""Whether live objects are ready, as their controllers' statuses say; and what differs between two objects."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._drift import differences
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._readiness import state
from hypothesis import given
from hypothesis import strategies as st


def live(kind: str, spec: dict[str, Any], status: dict[str, Any], generation: int = 1) -> dict[str, Any]:
    metadata = {"name": "x", "generation": generation}
    return {"kind": kind, "metadata": metadata, "spec": spec, "status": {"observedGeneration": 1, **status}}


DEPLOYED = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


@pytest.mark.parametrize(
    ("thing", "ready", "failed"),
    [
        (None, False, False),
        (live("Deployment", {"replicas": 2}, DEPLOYED), True, False),
        (live("Deployment", {"replicas": 2}, DEPLOYED, generation=2), False, False),
        (live("Deployment", {"replicas": 2}, {**DEPLOYED, "replicas": 3}), False, False),
        (live("Deployment", {"replicas": 2}, {**DEPLOYED, "availableReplicas": 1}), False, False),
        (live("Deployment", {"replicas": 0}, {}), True, False),
        (live("StatefulSet", {"replicas": 1}, {"readyReplicas": 1, "updatedReplicas": 1}), True, False),
        (live("StatefulSet", {"replicas": 1}, {"readyReplicas": 1, "updatedReplicas": 0}), False, False),
        (live("DaemonSet", {}, {"desiredNumberScheduled": 1, "updatedNumberScheduled": 1}), False, False),
        (live("DaemonSet", {}, {"desiredNumberScheduled": 0}), True, False),
        (live("Job", {}, {"conditions": [{"type": "Complete", "status": "True"}]}), True, False),
        (live("Job", {}, {"conditions": [{"type": "Failed", "status": "True", "message": "x"}]}), False, True),
        (live("Pod", {}, {"phase": "Succeeded"}), True, False),
        (live("Pod", {}, {"phase": "Failed"}), False, True),
        (
            live("CustomResourceDefinition", {}, {"conditions": [{"type": "Established", "status": "True"}]}),
            True,
            False,
        ),
    ],
)
def test_ready_and_failed(thing: dict[str, Any] | None, ready: bool, failed: bool) -> None:
    assert state(thing)[:2] == (ready, failed)


def test_a_difference_is_named_by_its_path() -> None:
    one = {"spec": {"replicas": 5, "containers": [{"image": "a"}]}}
    other = {"spec": {"replicas": 1, "containers": [{"image": "b"}], "paused": True}}
    assert differences(one, other) == [
        ("spec.containers[0].image", "a", "b"),
        ("spec.paused", None, True),
        ("spec.replicas", 5, 1),
    ]


value = st.recursive(
    st.integers() | st.text(max_size=3), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(value, value)
def test_differences_are_none_only_for_equal_values(one: Any, other: Any) -> None:
    assert differences(one, one) == []
    assert (differences(one, other) == []) == (one == other)
