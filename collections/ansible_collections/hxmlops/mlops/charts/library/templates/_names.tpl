{{/* Name of an app's objects. Context of every template here: root (the chart's $), app. */}}
{{- define "library.name" -}}
{{- .app.name | default .root.Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "library.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .app.name }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "library.labels" -}}
{{ include "library.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hxmlops
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "library.metadata" -}}
name: {{ include "library.name" . }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "library.labels" . | nindent 2 }}
{{- end -}}

{{/* An image's full name: root, image. One registry for all of them is global.imageRegistry. */}}
{{- define "library.image" -}}
{{- $registry := (.root.Values.global).imageRegistry | default .image.registry -}}
{{- with $registry }}{{ . }}/{{ end }}{{ .image.repository }}
{{- with .image.tag }}:{{ . }}{{ end }}
{{- with .image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* The Secret with a release's credentials, which is there before the release: helm_release or a person made it. */}}
{{- define "library.secret" -}}
{{- .Values.existingSecret | default (printf "%s-auth" .Release.Name) -}}
{{- end -}}

{{/* A value as text: to a template every number is a float, and ten million would be 1e+07. */}}
{{- define "library.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}
