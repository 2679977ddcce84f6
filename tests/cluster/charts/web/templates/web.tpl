{{- if .Values.refuse }}{{ fail (printf "the password %s does not suit" .Values.password) }}{{ end -}}
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {message: {{ .Values.message | quote }}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata:
      labels: {app: {{ .Release.Name }}}
      annotations: {{ .Values.pod | toJson }}
    spec: {{- include "web.pod" . | nindent 6 }}
{{- with .Values.password }}
---
apiVersion: v1
kind: Secret
metadata: {name: {{ $.Release.Name }}-password}
stringData: {password: {{ . | quote }}}
{{- end }}
{{- with .Values.hook }}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $.Release.Name }}-before
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  backoffLimit: 0
  template:
    metadata: {annotations: {{ . | toJson }}}
    spec:
      restartPolicy: Never
      {{- include "web.pod" $ | nindent 6 }}
{{- end }}
