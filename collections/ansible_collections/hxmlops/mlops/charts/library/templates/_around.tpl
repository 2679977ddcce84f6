{{/* What stands around a workload: Service, claim, configuration, account, network policy. */}}

{{- define "library.service" -}}
{{- if and .app.ports (not (eq (toString .app.service) "false")) }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "library.metadata" . | nindent 2 }}
spec:
  {{- if eq (toString .app.service) "headless" }}
  clusterIP: None
  {{- else }}
  type: {{ (.root.Values.service).type | default "ClusterIP" }}
  {{- end }}
  selector:
    {{- include "library.selector" . | nindent 4 }}
  ports:
    {{- $service := .app.servicePorts | default dict }}
    {{- range $name, $port := .app.ports }}
    - {name: {{ $name }}, port: {{ get $service $name | default $port }}, targetPort: {{ $name }}}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Kept when the release is deleted: data goes only when somebody says so (delete_data). */}}
{{- define "library.claim" -}}
{{- if and .app.data (not .root.Values.persistence.existingClaim) }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "library.metadata" . | nindent 2 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteOnce]
  {{- with .root.Values.persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests: {storage: {{ .root.Values.persistence.size }}}
{{- end }}
{{- end -}}

{{- define "library.config" -}}
{{- with .app.config }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "library.metadata" (mergeOverwrite (dict "suffix" "-config") $) | nindent 2 }}
data:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "library.account" -}}
{{- with .app.rules }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "library.metadata" $ | nindent 2 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "library.metadata" $ | nindent 2 }}
rules:
  {{- toYaml . | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "library.metadata" $ | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ include "library.name" $ }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "library.name" $ }}, namespace: {{ $.root.Release.Namespace }}}
{{- end }}
{{- end -}}

{{/* In: from the namespace, or from whom `networkPolicy.from` names; to `innerPorts` from the namespace only. Out: DNS, the namespace, and `networkPolicy.to`;
     with rights of its own also the API server, whose address a chart cannot know: its usual ports. */}}
{{- define "library.networkPolicy" -}}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "library.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "library.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- if or .app.ports .app.innerPorts }}
  ingress:
    {{- with .app.ports }}
    - from:
        {{- toYaml ($.root.Values.networkPolicy.from | default $.app.from | default (list (dict "podSelector" dict))) | nindent 8 }}
      ports:
        {{- range $name, $port := . }}
        - {protocol: TCP, port: {{ $name }}}
        {{- end }}
    {{- end }}
    {{- with .app.innerPorts }}
    - from: [{podSelector: {}}]
      ports:
        {{- range $name, $port := . }}
        - {protocol: TCP, port: {{ $name }}}
        {{- end }}
    {{- end }}
  {{- end }}
  egress:
    - ports:
        - {protocol: UDP, port: 53}
        - {protocol: TCP, port: 53}
    - to: [{podSelector: {}}]
    {{- if or .app.rules .app.account }}
    - ports:
        - {protocol: TCP, port: 443}
        - {protocol: TCP, port: 6443}
    {{- end }}
    {{- with concat (.app.to | default list) (.root.Values.networkPolicy.to | default list) }}
    - to:
        {{- toYaml . | nindent 8 }}
    {{- end }}
{{- end }}
{{- end -}}
