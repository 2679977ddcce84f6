# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Secrets that have to be there before a release: made once, given or generated, and never changed afterwards."""

from __future__ import annotations

import base64
import http.client
import secrets
import string
from typing import Any

from ansible_collections.hxmlops.mlops.plugins.plugin_utils._helm import KEYS, Stored
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._kube import Kube, KubeError
from ansible_collections.hxmlops.mlops.plugins.plugin_utils._releases import (
    EC_P256,
    Release,
    Secret,
    SecretKey,
)

ALPHABET = string.ascii_letters + string.digits


def missing(found: Stored, release: Release) -> list[tuple[Secret, set[str]]]:
    """Secrets of a release that are not there, or lack keys: with these keys. One that a person made is as it is."""
    lacking = []
    for secret in release.secrets:
        keys = found.secrets.get(secret.name, set())
        if keys is not None and set(secret.keys) - keys:
            lacking.append((secret, set(secret.keys) - keys))
    return lacking


def ensure(kube: Kube, release: Release, lacking: list[tuple[Secret, set[str]]]) -> None:
    """Make what is missing; what is there keeps its value."""
    for secret, keys in lacking:
        data = {key: _encoded(value_of(secret.keys[key])) for key in sorted(keys)}
        collection = f"/api/v1/namespaces/{release.namespace}/secrets"
        metadata = {
            "annotations": {KEYS: ",".join(sorted(secret.keys))},
            "labels": {"app.kubernetes.io/managed-by": "hxmlops", "app.kubernetes.io/instance": release.name},
        }
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {**metadata, "name": secret.name}, "data": data}
        try:
            kube.create(collection, body)
        except KubeError as error:
            if error.status != http.client.CONFLICT:
                raise
            # it is there without some keys, or another run was first: only what it lacks is added
            there = (kube.get(f"{collection}/{secret.name}") or {}).get("data") or {}
            added = {key: value for key, value in data.items() if key not in there}
            kube.merge(f"{collection}/{secret.name}", {"metadata": metadata, "data": added})


def differing(kube: Kube, release: Release) -> list[str]:
    """Keys whose given value is not the one in the cluster: they were left alone, and a person should know."""
    found = []
    for secret in release.secrets:
        given = {key: source.given for key, source in secret.keys.items() if source.given is not None}
        if not given:
            continue
        there = kube.get(f"/api/v1/namespaces/{release.namespace}/secrets/{secret.name}")
        data = (there or {}).get("data") or {}
        found += [
            f"{secret.name}/{key}" for key, value in given.items() if key in data and data[key] != _encoded(value)
        ]
    return found


def known(kube: Kube, release: Release) -> set[str]:
    """The secret texts of a release, to scrub them from what others said."""
    texts = {source.given for secret in release.secrets for source in secret.keys.values() if source.given}
    for secret in release.secrets:
        try:
            there: Any = kube.get(f"/api/v1/namespaces/{release.namespace}/secrets/{secret.name}") or {}
        except KubeError:
            continue
        texts |= {base64.b64decode(value).decode(errors="replace") for value in (there.get("data") or {}).values()}
    return texts


def value_of(source: SecretKey) -> str:
    """The value that such a key of a Secret gets: another at each call where it is generated."""
    if source.given is not None:
        return source.given
    if source.default is not None:
        return source.default
    if source.generate == EC_P256:
        return _private_key()
    return "".join(secrets.choice(ALPHABET) for _each in range(int(source.generate)))


def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization  # Ansible itself needs it; its import takes a while
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode("ascii")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
