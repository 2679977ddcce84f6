# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""What the documentation of the Ansible modules for Kubernetes domains has in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Which cluster, and as whom: names and environment variables are those of kubernetes.core."""

    DOCUMENTATION = r"""
author: HX-MLOps contributors (@hxmlops)
attributes:
  check_mode:
    description: Says what would happen; changes nothing in the cluster.
    support: full
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: full
  action:
    description: Runs on the controller, as every domain is reached from there.
    support: full
options:
  kubeconfig:
    description:
      - A kubeconfig file, several joined by C(:) (the first to name a thing wins), or the content of one as a mapping.
      - Else E(K8S_AUTH_KUBECONFIG), E(KUBECONFIG), or C(~/.kube/config).
    type: raw
  context:
    description: A context of O(kubeconfig); else E(K8S_AUTH_CONTEXT), or the current one of O(kubeconfig).
    type: str
  host:
    description:
      - URL of an API server to use without a O(kubeconfig), with O(api_key) or O(client_cert).
      - Else E(K8S_AUTH_HOST). O(context) and O(kubeconfig) win over it.
    type: str
  api_key:
    description: Bearer token for O(host); else E(K8S_AUTH_API_KEY).
    type: str
  ca_cert:
    description: File of the certificates that O(host) is trusted by; else E(K8S_AUTH_SSL_CA_CERT).
    type: path
  client_cert:
    description: File of a client certificate for O(host); else E(K8S_AUTH_CERT_FILE).
    type: path
  client_key:
    description: File of the key of O(client_cert); else E(K8S_AUTH_KEY_FILE).
    type: path
  validate_certs:
    description:
      - Whether the API server's certificate is checked; else E(K8S_AUTH_VERIFY_SSL), or what O(kubeconfig) says.
    type: bool
  proxy:
    description: URL of an HTTP proxy to the API server; else E(K8S_AUTH_PROXY), or what O(kubeconfig) says.
    type: str
"""
