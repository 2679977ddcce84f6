{{/*
One program of KFP: the chart's $, the key of its values, its app. Image, resources and extraEnv come from its own part
of the values; service.type is the UI's alone. `for` says who may connect: the release (default), "steps" of pipelines
too, "people" (the namespace and networkPolicy.from), "prometheus" (the namespace), "kubernetes" (the API server, which
has any address).
*/}}
{{- define "kfp.app" -}}
{{- $top := index . 0 }}
{{- $own := get $top.Values (index . 1) }}
{{- $app := index . 2 | fromYaml }}
{{- $for := $app.for | default "release" }}
{{- $from := list (dict "podSelector" (dict "matchLabels" (dict "app.kubernetes.io/instance" $top.Release.Name))) }}
{{- if eq $for "steps" }}
{{- $from = append $from (dict "podSelector" (include "kfp.steps" $top | fromYaml)) }}
{{- else if eq $for "people" }}
{{- $from = concat (list (dict "podSelector" dict)) $top.Values.networkPolicy.from }}
{{- else if eq $for "prometheus" }}
{{- $from = list (dict "podSelector" dict) }}
{{- else if eq $for "kubernetes" }}
{{- $from = list (dict "ipBlock" (dict "cidr" "0.0.0.0/0")) (dict "ipBlock" (dict "cidr" "::/0")) }}
{{- end }}
{{- $values := omit $top.Values "networkPolicy" "service" "extraEnv" }}
{{- $_ := set $values "networkPolicy" (merge (dict "from" $from) (omit $top.Values.networkPolicy "from")) }}
{{- $_ := set $values "extraEnv" $own.extraEnv }}
{{- if eq $app.name "ml-pipeline-ui" }}
{{- $_ := set $values "service" $top.Values.service }}
{{- end }}
{{- $root := dict "Values" $values "Chart" $top.Chart "Release" $top.Release }}
{{- $app = merge (dict "image" $own.image "resources" $own.resources) $app }}
{{- include "library.app" (dict "root" $root "app" $app) }}
{{- end -}}

{{/* Labels of an object that belongs to no program. */}}
{{- define "kfp.labels" -}}
{{- include "library.labels" (dict "root" . "app" dict) }}
{{- end -}}

{{/* Which pods are steps of pipelines: Argo Workflows labels them. */}}
{{- define "kfp.steps" -}}
matchExpressions: [{key: workflows.argoproj.io/workflow, operator: Exists}]
{{- end -}}

{{- define "kfp.image" -}}
{{- include "library.image" (dict "root" (index . 0) "image" (index . 1)) }}
{{- end -}}

{{/* An init container that waits for a service: $, host, port. */}}
{{- define "kfp.wait" -}}
- name: wait-for-{{ index . 1 }}
  image: {{ include "kfp.image" (list (index . 0) (index . 0).Values.wait.image) }}
  imagePullPolicy: IfNotPresent
  command: [sh, -c, "until nc -z -w 2 {{ index . 1 }} {{ index . 2 }}; do sleep 2; done"]
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  securityContext:
    {{- include "library.restricted" . | nindent 4 }}
{{- end -}}

{{/* A variable from the Secret of MySQL: $, name, key. */}}
{{- define "kfp.mysqlEnv" -}}
- name: {{ index . 1 }}
  valueFrom: {secretKeyRef: {name: {{ include "library.secret" (index . 0) }}, key: {{ index . 2 }}}}
{{- end -}}

{{/* A variable from the Secret of the S3: $, name, key. */}}
{{- define "kfp.s3Env" -}}
- name: {{ index . 1 }}
  valueFrom: {secretKeyRef: {name: {{ (index . 0).Values.s3.existingSecret }}, key: {{ index . 2 }}}}
{{- end -}}

{{- define "kfp.s3Host" -}}
{{- .Values.s3.endpoint | splitList ":" | first }}
{{- end -}}

{{- define "kfp.s3Port" -}}
{{- if contains ":" .Values.s3.endpoint }}{{ .Values.s3.endpoint | splitList ":" | last }}
{{- else if .Values.s3.secure }}443{{ else }}80{{ end }}
{{- end -}}

{{/* Where objects of the namespace lie. The UI derives the owner of what MLMD does not know from this prefix. */}}
{{- define "kfp.keyFormat" -}}
{{- $date := "{{workflow.creationTimestamp.Y}}/{{workflow.creationTimestamp.m}}/{{workflow.creationTimestamp.d}}" }}
{{- printf "private-artifacts/{{workflow.namespace}}/{{workflow.name}}/%s/{{pod.name}}" $date }}
{{- end -}}
