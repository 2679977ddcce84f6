{{/* What is kept of the meters, by domain, workflow, run and stage; never without the method of its figures. Where
     other domains write their series here too, pods and addresses that are alike are told apart by the domain. */}}
{{- define "prometheus.rules" -}}
{{- $seconds := trimSuffix "s" .Values.meters.interval -}}
{{- $domain := include "prometheus.domain" . | quote -}}
{{- $method := "on (instance) group_left (method) hxmlops_meter_info" -}}
{{- $kepler := printf "%s{domain=%s, meter=\"kepler\"}" $method $domain -}}
{{- $scaphandre := printf "%s{domain=%s, meter=\"scaphandre\"}" $method $domain -}}
{{- $stage := printf "on (pod_name) group_left (workflow, run, stage) hxmlops_stage_info{domain=%s}" $domain -}}
groups:
  - name: stages
    interval: {{ .Values.meters.interval }}
    labels: {domain: {{ $domain }}}
    rules:
      - record: hxmlops_stage_info
        expr: group by (workflow, run, stage, pod_name) (last_over_time(up{job="stages"}[1m]))

      # Kepler's fake meter shows by the path of its zones
      - record: hxmlops_meter_info
        expr: group by (instance) (kepler_node_cpu_joules_total{path=~".*/energy_[a-z]+"})
        labels: {meter: kepler, method: simulated}
      - record: hxmlops_meter_info
        expr: |
          group by (instance) (kepler_node_cpu_joules_total)
          unless on (instance) kepler_node_cpu_joules_total{path=~".*/energy_[a-z]+"}
        labels: {meter: kepler, method: measured}
      - record: hxmlops_meter_info
        expr: group by (instance) (scaph_host_power_microwatts)
        labels: {meter: scaphandre, method: measured}

      # Joules of a pod since it began: a counter that ends with the pod. Its maximum is the pod's energy; Kepler gives
      # it out once, as that of a terminated pod, hence three scrapes' time to take it.
      - record: hxmlops_stage_joules
        expr: |
          sum by (instance, pod_name, pod_id) (
            max by (instance, pod_name, pod_id, zone) (
              last_over_time(kepler_pod_cpu_joules_total[{{ mul 3 $seconds }}s])
            )
          )
          * {{ $kepler }}
          * {{ $stage }}
        labels: {meter: kepler}
      - record: hxmlops_stage_watts
        expr: |
          sum by (instance, pod_name, pod_id) (kepler_pod_cpu_watts{state="running"})
          * {{ $kepler }}
          * {{ $stage }}
        labels: {meter: kepler}
      - record: hxmlops_stage_watts
        expr: |
          sum by (instance, pod_name) (scaph_process_power_consumption_microwatts) / 1e6
          * {{ $scaphandre }}
          * {{ $stage }}
        labels: {meter: scaphandre}
      # Scaphandre has no counter of a process: its power, added up over the last two days of the pod
      - record: hxmlops_stage_joules
        expr: |
          sum_over_time(hxmlops_stage_watts{domain={{ $domain }}, meter="scaphandre"}[2d]) * {{ $seconds }}
          and on (pod_name) hxmlops_stage_info{domain={{ $domain }}}
        labels: {meter: scaphandre}

  - name: domain
    interval: 1m
    labels: {domain: {{ $domain }}}
    rules:
      # Mean power of the minute: sums, and not rates, count pods that lived for a part of it
      - record: hxmlops_pod_watts
        expr: |
          sum by (instance, pod_name) (sum_over_time(kepler_pod_cpu_watts{state="running"}[1m]))
          * {{ $seconds }} / 60 * {{ $kepler }}
        labels: {meter: kepler}
      - record: hxmlops_pod_watts
        expr: |
          sum by (instance, pod_name) (sum_over_time(scaph_process_power_consumption_microwatts[1m]))
          * {{ $seconds }} / 60 / 1e6 * {{ $scaphandre }}
        labels: {meter: scaphandre}
      - record: hxmlops_domain_watts
        expr: sum by (meter, method) (hxmlops_pod_watts{domain={{ $domain }}})

      # Bounds of a figure, by its method: RAPL shared by CPU time is good to 30 %, an estimate to a factor of two
      {{- range $method, $bounds := dict "measured" (list 0.7 1.3) "estimated" (list 0.5 2) }}
      {{- range $index, $bound := list "low" "high" }}
      - record: hxmlops_energy_factor
        expr: vector({{ index $bounds $index }})
        labels: {method: {{ $method }}, bound: {{ $bound }}}
      {{- end }}
      {{- end }}
{{- end -}}
