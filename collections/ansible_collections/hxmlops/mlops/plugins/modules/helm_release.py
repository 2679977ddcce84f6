# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: helm_release
short_description: Helm releases as they should be, one or a graph of them
version_added: 0.2.0
description:
  - The whole list is checked before anything runs, needs included, and every chart that values are given to is
    rendered with them, which checks them against C(values.schema.json). Then independent releases are worked on side
    by side.
  - That nothing is to be done is found without starting helm, from one metadata-only list of the namespace's Secrets.
    A label of the release record holds a digest of chart and values and the revision that it was made for, so that
    a release which somebody changed by hand is seen as changed.
  - Values go to helm by its standard input. Nothing secret is in arguments, results or logs.
  - Needs Helm 3.14 or newer (4 included) on the controller, for changes only.
extends_documentation_fragment:
  - hxmlops.mlops.cluster
  - hxmlops.mlops.engine
options:
  releases:
    description: Several releases; each takes the options of one, from O(name) to O(delete_data).
    type: list
    elements: dict
    suboptions:
      name: &name
        description: Name of the release.
        type: str
      namespace: &namespace
        description: Its namespace, which has to exist; by default that of the context.
        type: str
      state: &state
        description:
          - V(present) installs or upgrades, V(absent) uninstalls, V(rolled_back) goes back to O(revision).
        type: str
        choices: [present, absent, rolled_back]
      chart: &chart
        description: Folder or archive of the chart (relative to the playbook), name in O(repo), or C(oci://) reference.
        type: str
      version: &version
        description: Version of a chart from a registry or repository; required there, as it would change by itself.
        type: str
      repo: &repo
        description: URL of a chart repository.
        type: str
      values: &values
        description: Values that differ from the chart's. They come over those of O(values_files).
        type: dict
      values_files: &values_files
        description: Files of values (relative to the playbook), later ones over earlier ones.
        type: list
        elements: str
      needs: &needs
        description: Names of releases of the list that have to be there first (with V(absent), gone last).
        type: list
        elements: str
      secrets: &secrets
        description:
          - Secrets that are made before the release, once, and never changed. Each has C(name) and C(data), by key one
            of C(value) (given), C(default) (if nothing is given) or C(generate) (that many random letters and digits,
            or V(ec_p256) for a private key, ECDSA P-256 in PEM).
          - A given value that differs from the one in the cluster is left, with a warning.
        type: list
        elements: dict
      revision: &revision
        description: The revision to go back to, with V(rolled_back).
        type: int
      delete_data: &delete_data
        description: >-
          With V(absent), delete its claims (by the label C(app.kubernetes.io/instance)) and O(secrets) as well.
        type: bool
  name: *name
  namespace: *namespace
  state: *state
  chart: *chart
  version: *version
  repo: *repo
  values: *values
  values_files: *values_files
  needs: *needs
  secrets: *secrets
  revision: *revision
  delete_data: *delete_data
  recover:
    description:
      - Go on with releases that failed or were left pending. Without it they are refused, as another helm may be at
        work.
      - Records of revisions that never became one are dropped; their objects are taken over by the upgrade.
    type: bool
    default: false
  drift:
    description:
      - Whether live objects are compared with what their release made them, by a dry run of server-side apply.
      - V(report) lists differences in C(releases[].drift), V(repair) applies the release again where there are some.
    type: str
    choices: [ignore, report, repair]
    default: ignore
  binary_path:
    description: The helm program; by default the one on PATH.
    type: path
"""

EXAMPLES = r"""
- name: A database, and what needs it
  hxmlops.mlops.helm_release:
    context: mno-staging
    namespace: churn
    releases:
      - name: database
        chart: charts/postgres
        values: {persistence: {size: 20Gi}}
        secrets:
          - name: database-auth
            data:
              username: {default: churn}
              password: {generate: 32}
      - name: api
        chart: charts/api
        values_files: [values/api.yaml]
        needs: [database]

- name: Back to the third revision
  hxmlops.mlops.helm_release:
    context: mno-staging
    namespace: churn
    name: api
    state: rolled_back
    revision: 3
"""

RETURN = r"""
releases:
  description: One record for each release, in the order of the list, whatever happened.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: Its name.
      type: str
    namespace:
      description: Its namespace.
      type: str
    action:
      description: >-
        C(none), C(wait) (it was there, but not yet seen ready), C(install), C(upgrade), C(recover), C(repair),
        C(secrets) (only these were missing), C(rollback), C(uninstall), C(adopt) (a killed run had done it), C(refused)
        or C(skipped).
      type: str
    revision:
      description: The revision that is there now, 0 for none.
      type: int
    changed:
      description: Whether something was changed.
      type: bool
    failed:
      description: Whether it failed.
      type: bool
    reason:
      description: Why it failed or was skipped, in the words of helm or the cluster.
      type: str
    seconds:
      description: How long it took.
      type: float
    drift:
      description: What differs from the release, one sentence an object and field.
      type: list
      elements: str
    secrets:
      description: Names of the Secrets that were made.
      type: list
      elements: str
"""
