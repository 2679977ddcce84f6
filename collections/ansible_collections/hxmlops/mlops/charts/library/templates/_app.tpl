{{/* One workload with all its objects: root (the chart's $), app (see README.md). */}}
{{- define "library.app" -}}
{{- with .app.Error }}{{ fail . }}{{ end -}}{{/* what fromYaml says of text that is no YAML */}}
{{- include "library.account" . }}
{{- include "library.config" . }}
{{- include "library.claim" . }}
{{- include "library.service" . }}
{{- include "library.networkPolicy" . }}
{{- include "library.workload" . }}
{{- end -}}

{{- define "library.workload" -}}
{{- $kind := .app.kind | default "Deployment" }}
---
apiVersion: apps/v1
kind: {{ $kind }}
metadata:
  {{- include "library.metadata" . | nindent 2 }}
spec:
  {{- if ne $kind "DaemonSet" }}
  replicas: {{ if and (hasKey .app "replicas") (not .app.data) }}{{ .app.replicas }}{{ else }}1{{ end }}
  {{- end }}
  {{- if eq $kind "StatefulSet" }}
  serviceName: {{ include "library.name" . }}
  {{- else if and .app.data (eq $kind "Deployment") }}
  strategy: {type: Recreate}
  {{- end }}
  revisionHistoryLimit: 3
  selector:
    matchLabels:
      {{- include "library.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "library.selector" . | nindent 8 }}
        app.kubernetes.io/part-of: hxmlops
        {{- with .root.Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- $annotations := dict }}
      {{- if and .app.config (not .app.configReload) }}
      {{- $_ := set $annotations "checksum/config" (toYaml .app.config | sha256sum) }}
      {{- end }}
      {{- with .app.metrics }}
      {{- $annotations = merge $annotations (dict "prometheus.io/scrape" "true" "prometheus.io/port" (toString .port) "prometheus.io/path" .path) }}
      {{- end }}
      {{- with mergeOverwrite $annotations (.root.Values.podAnnotations | default dict) }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "library.pod" . | nindent 6 }}
{{- end -}}

{{- define "library.pod" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ .app.account | default (ternary (include "library.name" .) "default" (not (empty .app.rules))) }}
automountServiceAccountToken: {{ or .app.rules .app.account | empty | not }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .app.graceSeconds | default 30 }}
{{- with ($values.global).imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .app.privileged }}
{{- toYaml .app.privileged | nindent 0 }}
{{- else }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int64 .app.uid }}
  runAsGroup: {{ .app.gid | default .app.uid | int64 }}
  fsGroup: {{ .app.gid | default .app.uid | int64 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- with .app.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .root.Chart.Name }}
    image: {{ include "library.image" (dict "root" .root "image" (.app.image | default $values.image)) }}
    imagePullPolicy: IfNotPresent
    {{- with .app.command }}
    command:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .app.args }}
    args:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with concat (.app.env | default list) ($values.extraEnv | default list) }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .app.envFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with merge dict (.app.ports | default dict) (.app.innerPorts | default dict) }}
    ports:
      {{- range $name, $port := . }}
      - {name: {{ $name }}, containerPort: {{ $port }}}
      {{- end }}
    {{- end }}
    {{- with .app.probe }}
    startupProbe:
      {{- toYaml . | nindent 6 }}
      periodSeconds: 2
      timeoutSeconds: 5
      failureThreshold: {{ div ($.app.startupSeconds | default 120) 2 }}
    {{- end }}
    {{- with .app.readiness | default .app.probe }}
    readinessProbe:
      {{- toYaml . | nindent 6 }}
      periodSeconds: 10
      timeoutSeconds: 5
    {{- end }}
    {{- with .app.liveness | default .app.probe }}
    livenessProbe:
      {{- toYaml . | nindent 6 }}
      periodSeconds: 20
      timeoutSeconds: 5
      failureThreshold: 6
    {{- end }}
    {{- with .app.lifecycle }}
    lifecycle:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    resources:
      {{- toYaml (.app.resources | default $values.resources) | nindent 6 }}
    {{- if .app.privileged }}
    securityContext: {{ toYaml (.app.securityContext | default dict) | nindent 6 }}
    {{- else }}
    securityContext:
      {{- include "library.restricted" . | nindent 6 }}
    {{- end }}
    {{- include "library.mounts" . | nindent 4 }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "library.volumes" . }}
{{- end -}}

{{/* The security context of a container under the restricted Pod Security Standard; for initContainers too. */}}
{{- define "library.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "library.mounts" -}}
{{- if or .app.data .app.writable .app.config .app.mounts -}}
volumeMounts:
  {{- with .app.data }}
  - {name: data, mountPath: {{ . }}}
  {{- end }}
  {{- range .app.writable }}
  - {name: scratch, mountPath: {{ . }}, subPath: {{ trimPrefix "/" . | replace "/" "-" }}}
  {{- end }}
  {{- if .app.config }}
  - {name: config, mountPath: {{ .app.configPath }}, readOnly: true}
  {{- end }}
  {{- with .app.mounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "library.volumes" -}}
{{- if or .app.data .app.writable .app.config .app.volumes }}
volumes:
  {{- if .app.data }}
  - name: data
    persistentVolumeClaim: {claimName: {{ .root.Values.persistence.existingClaim | default (include "library.name" .) }}}
  {{- end }}
  {{- if .app.writable }}
  - name: scratch
    emptyDir: {sizeLimit: {{ .app.scratchSize | default "1Gi" }}}
  {{- end }}
  {{- if .app.config }}
  - name: config
    configMap: {name: {{ include "library.name" . }}-config}
  {{- end }}
  {{- with .app.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}
