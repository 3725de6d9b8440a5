{{- /* Call with (dict "root" $ "labels" …): the chart's labels, and those by which others find the object. */ -}}
{{- define "synapse-shards.monitoring.labels" -}}
{{- include "synapse-shards.labels" (dict "root" .root "component" "monitoring") }}
{{- with .labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What tells the alerts and the dashboard whose metrics these are. Call with (dict "root" $ "component" "gateway"). */ -}}
{{- define "synapse-shards.monitoring.relabelings" -}}
- targetLabel: cluster_id
  replacement: {{ .root.Release.Name | quote }}
- targetLabel: component
  replacement: {{ .component }}
{{- end }}

{{- /* files/alerts.yaml with what is in double square brackets filled in. */ -}}
{{- define "synapse-shards.monitoring.alerts" -}}
{{- $text := regexReplaceAll "(?m)^#.*\n" (.Files.Get "files/alerts.yaml") "" -}}
{{- $selector := printf "namespace=%q,cluster_id=%q" .Release.Namespace .Release.Name -}}
{{- range $name, $value := merge (dict "selector" $selector) .Values.monitoring.rules.thresholds -}}
{{- $place := printf "[[ %s ]]" $name -}}
{{- if not (contains $place $text) }}{{ fail (printf "monitoring.rules.thresholds.%s: no alert has such a threshold" $name) }}{{ end -}}
{{- $text = replace $place (toString $value) $text -}}
{{- end -}}
{{- with regexFind "\\[\\[ [a-zA-Z]+ \\]\\]" $text }}{{ fail (printf "monitoring.rules.thresholds: there is no value for %s" .) }}{{ end -}}
{{- $base := trimSuffix "/" .Values.monitoring.rules.runbookBaseUrl -}}
{{- $groups := (fromYaml $text).groups -}}
{{- range $group := $groups -}}
{{- range $rule := $group.rules -}}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s/%s.md" $base $rule.alert) -}}
{{- $_ := set $rule "labels" (merge $rule.labels $.Values.monitoring.rules.alertLabels) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "groups" $groups) -}}
{{- end }}
