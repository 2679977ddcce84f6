{{- define "prometheus.meters" -}}
{{ .Values.meters.namespace | default (printf "%s-meters" .Release.Namespace) }}
{{- end -}}

{{- define "prometheus.domain" -}}
{{ .Values.domain | default .Release.Namespace }}
{{- end -}}

{{- define "prometheus.config" -}}
global:
  scrape_interval: {{ .Values.scrapeInterval }}
  evaluation_interval: 1m
  external_labels: {domain: {{ include "prometheus.domain" . | quote }}}
storage:
  tsdb:
    retention:
      {{- toYaml .Values.retention | nindent 6 }}
rule_files: [/etc/prometheus/rules.yml]
scrape_configs:
  - job_name: prometheus
    static_configs: [{targets: ["localhost:9090"], labels: {module: prometheus}}]
    metric_relabel_configs:
      - source_labels: [__name__]
        regex: prometheus_(tsdb_(head_series|(storage_blocks|wal_storage_size)_bytes)|.+_(missed|samples_failed)_total)
        action: keep

  # Pods of the domain with prometheus.io/scrape: "true", and /port, /path, /scheme
  - job_name: pods
    kubernetes_sd_configs: [{role: pod, namespaces: {own_namespace: true}}]
    relabel_configs:
      - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: "true", action: keep}
      - {source_labels: [__meta_kubernetes_pod_container_init], regex: "true", action: drop}
      - {source_labels: [__meta_kubernetes_pod_phase], regex: Running, action: keep}
      {{- include "prometheus.annotations" "pod" | nindent 6 }}
      {{- include "prometheus.address" "pod" | nindent 6 }}
      {{- include "prometheus.labels" . | nindent 6 }}
    {{- include "prometheus.drop" . | nindent 4 }}

  # Services with the same annotations, each of their pods, unless the pod has them itself
  - job_name: services
    kubernetes_sd_configs: [{role: endpointslice, namespaces: {own_namespace: true}}]
    relabel_configs:
      - {source_labels: [__meta_kubernetes_service_annotation_prometheus_io_scrape], regex: "true", action: keep}
      - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: "true", action: drop}
      - {source_labels: [__meta_kubernetes_endpointslice_endpoint_conditions_ready], regex: "false", action: drop}
      {{- include "prometheus.annotations" "service" | nindent 6 }}
      {{- include "prometheus.address" "service" | nindent 6 }}
      {{- include "prometheus.labels" . | nindent 6 }}
    {{- include "prometheus.drop" . | nindent 4 }}

  # Meters know pods by name only. `up` of this job says which workflow, run and stage a pod belongs to: one target for
  # each pod of a stage, until the pod is deleted, at an address of our own that has nothing to say.
  - job_name: stages
    scrape_interval: {{ .Values.meters.interval }}
    scrape_timeout: {{ .Values.meters.interval }}
    metrics_path: /federate
    params: {"match[]": ['{__name__="none"}']}
    kubernetes_sd_configs:
      - role: pod
        namespaces: {own_namespace: true}
        selectors: [{role: pod, label: hxmlops.io/stage}]
    relabel_configs:
      - {target_label: __address__, replacement: "localhost:9090"}
      - {source_labels: [__meta_kubernetes_pod_name], target_label: pod_name}
      - {source_labels: [__meta_kubernetes_pod_label_hxmlops_io_workflow], target_label: workflow}
      - {source_labels: [__meta_kubernetes_pod_label_hxmlops_io_run], target_label: run}
      - {source_labels: [__meta_kubernetes_pod_label_hxmlops_io_stage], target_label: stage}
  {{- with .Values.meters.kepler }}

  - job_name: kepler
    scrape_interval: {{ $.Values.meters.interval }}
    scrape_timeout: {{ $.Values.meters.interval }}
    dns_sd_configs: [{names: ["_http._tcp.{{ . }}.{{ include "prometheus.meters" $ }}.svc"], type: SRV}]
    metric_relabel_configs:
      - source_labels: [__name__]
        regex: kepler_(node_cpu_(active_|idle_)?(joules_total|watts)|pod_cpu_(joules_total|watts))
        action: keep
      - {source_labels: [zone], regex: {{ join "|" $.Values.meters.zones | quote }}, action: keep}
      - source_labels: [__name__, pod_namespace]
        regex: kepler_node_.+;|kepler_pod_.+;{{ $.Release.Namespace }}
        action: keep
  {{- end }}
  {{- with .Values.meters.scaphandre }}

  - job_name: scaphandre
    scrape_interval: {{ $.Values.meters.interval }}
    scrape_timeout: {{ $.Values.meters.interval }}
    dns_sd_configs: [{names: ["_http._tcp.{{ . }}.{{ include "prometheus.meters" $ }}.svc"], type: SRV}]
    metric_relabel_configs:
      - source_labels: [__name__, kubernetes_pod_namespace]
        regex: scaph_host_(power|energy)_.+;|scaph_process_power_consumption_.+;{{ $.Release.Namespace }}
        action: keep
      - {source_labels: [kubernetes_pod_name], target_label: pod_name}
      # a command line may hold a secret, and each is a series
      - {regex: cmdline|container_.+|kubernetes_pod_.+, action: labeldrop}
  {{- end }}
{{- with .Values.remoteWrite.targets }}
remote_write:
  {{- $ours := dict "source_labels" (list "__name__") "regex" "hxmlops_.+" "action" "keep" }}
  {{- range . }}
  {{- list (merge (deepCopy .) (dict "write_relabel_configs" (list $ours))) | toYaml | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "prometheus.annotations" -}}
- source_labels: [__meta_kubernetes_{{ . }}_annotation_prometheus_io_scheme]
  regex: (https?)
  target_label: __scheme__
- source_labels: [__meta_kubernetes_{{ . }}_annotation_prometheus_io_path]
  regex: (.+)
  target_label: __metrics_path__
{{- end -}}

{{/* The address found, IPv4 or [IPv6], with the port of the annotation. */}}
{{- define "prometheus.address" -}}
- source_labels: [__address__, __meta_kubernetes_{{ . }}_annotation_prometheus_io_port]
  regex: (\[.+\]|[^:]+)(?::\d+)?;(\d+)
  replacement: $1:$2
  target_label: __address__
{{- end -}}

{{- define "prometheus.labels" -}}
- {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_name], target_label: module}
- {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance], target_label: release}
- {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
{{- end -}}

{{- define "prometheus.drop" -}}
{{- with .Values.dropMetrics -}}
metric_relabel_configs:
  - {source_labels: [__name__], regex: {{ . | quote }}, action: drop}
{{- end }}
{{- end -}}
