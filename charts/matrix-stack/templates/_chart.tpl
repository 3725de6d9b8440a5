{{- /* What the chart synapse-tenant, which shares the other templates with this one (charts/share.mjs), has otherwise. */ -}}
{{- define "chart.enabled" -}}
{{ if .Values.synapse.enabled }}true{{ end }}
{{- end }}

{{- /* Whether the homeserver itself serves /.well-known/matrix/. */ -}}
{{- define "chart.servesWellKnown" -}}
{{ if .Values.wellKnownDelegation.enabled }}true{{ end }}
{{- end }}

{{- /* Options of homeserver.yaml of the chart's own. */ -}}
{{- define "chart.options" -}}
{}
{{- end }}

{{- /* More of what is in other Secrets, as matrix-stack.secretRefs. */ -}}
{{- define "chart.secretRefs" -}}
{"refs": []}
{{- end }}

{{- /* Further Secrets that a Job makes: their keys by their name. */ -}}
{{- define "chart.madeSecrets" -}}
{}
{{- end }}

{{- /* Further names that lead to the homeserver. */ -}}
{{- define "chart.hosts" -}}
{{- $hosts := list -}}
{{- range .Values.synapse.hosts }}{{ $hosts = append $hosts (tpl . $ | trimSuffix ".") }}{{ end -}}
{{- dict "hosts" $hosts | toJson -}}
{{- end }}

{{- /* What of the values is not possible, in words. */ -}}
{{- define "chart.problems" -}}
{{- $synapse := .Values.synapse -}}
{{- $problems := list -}}
{{- if $synapse.redis }}{{ $problems = append $problems "synapse.redis: a homeserver with workers has a Redis of its own in its pod, and others need none" }}{{ end -}}
{{- if $synapse.extraArgs }}{{ $problems = append $problems "synapse.extraArgs: give options in synapse.additional" }}{{ end -}}
{{- $workers := 0 -}}
{{- range include "matrix-stack.workerKinds" . | fromJson }}{{ $workers = add $workers (int .replicas) }}{{ end -}}
{{- /* Each has a port of its own in three ranges of a hundred. */ -}}
{{- if gt (int $workers) 100 }}{{ $problems = append $problems (printf "synapse.workers: %d workers; at most 100 are allowed in one pod" (int $workers)) }}{{ end -}}
{{- if eq (include "matrix-stack.mode" .) "tenant" -}}
{{- range $synapse.appservices -}}
{{- if .configMap }}{{ $problems = append $problems (printf "synapse.appservices: the ConfigMap %s is not for tenants: a registration has tokens, and the controller reads Secrets alone; use secret and secretKey" .configMap) }}{{ end -}}
{{- end -}}
{{- if eq (toString $synapse.replicas) "0" }}{{ $problems = append $problems "synapse.replicas is 0: a tenant is stopped by `synapse-shards tenant suspend`" }}{{ end -}}
{{- end -}}
{{- dict "problems" $problems | toJson -}}
{{- end }}
