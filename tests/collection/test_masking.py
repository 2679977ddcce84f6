"""What may be shown: no secret in values, manifests and texts, and nothing garbled that is none."""

from __future__ import annotations

from ansible_collections.hxmlops.mlops.plugins.plugin_utils import _masking
from hypothesis import given
from hypothesis import strategies as st


def test_values_are_masked_by_their_keys() -> None:
    shown = _masking.values(
        {
            "adminPassword": "one",
            "auth": {"token": "two", "existingSecret": "grafana-auth", "passwordFile": "/run/secret"},
            "s3": {"secretKey": "three", "accessKey": "four"},
            "users": [{"name": "ana", "apiKey": "five"}],
            "port": 5432,
        }
    )
    assert shown == {
        "adminPassword": _masking.MASK,
        "auth": {"token": _masking.MASK, "existingSecret": "grafana-auth", "passwordFile": "/run/secret"},
        "s3": {"secretKey": _masking.MASK, "accessKey": _masking.MASK},
        "users": [{"name": "ana", "apiKey": _masking.MASK}],
        "port": 5432,
    }


def test_the_data_of_secrets_is_masked_in_manifests() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "auth"}, "data": {"password": "c2VjcmV0"}}
    config = {"kind": "ConfigMap", "metadata": {"name": "auth"}, "data": {"mode": "open"}}
    text = _masking.manifest([secret, config])
    assert "c2VjcmV0" not in text
    assert f"password: '{_masking.MASK}'" in text
    assert "mode: open" in text
    assert text.index("ConfigMap") < text.index("Secret"), "a fixed order"


def test_short_texts_are_no_secrets_in_running_text() -> None:
    """A password that equals a port number must not garble every port in a message."""
    assert _masking.scrubbed("nothing listens on port 5432", ["5432"]) == "nothing listens on port 5432"
    assert _masking.scrubbed("denied for hunter22", ["hunter22", "hunter"]) == f"denied for {_masking.MASK}"


@given(st.text(max_size=40), st.lists(st.text(min_size=_masking.SHORTEST, max_size=12), max_size=3))
def test_no_known_secret_is_left_in_a_text(text: str, secrets: list[str]) -> None:
    around = text.join(secrets)
    shown = _masking.scrubbed(around, secrets)
    assert all(secret not in shown or secret in _masking.MASK * 9 for secret in secrets)
