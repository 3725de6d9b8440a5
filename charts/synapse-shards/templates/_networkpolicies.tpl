{{- define "synapse-shards.peer" -}}
podSelector: {matchLabels: {{ include "synapse-shards.selectorLabels" . | fromYaml | toJson }}}
{{- end }}

{{- /* Those who collect metrics: by default pods of any other namespace, and never those of this one, where tenants run. */ -}}
{{- define "synapse-shards.metricsFrom" -}}
{{- with .Values.networkPolicies.metricsFrom }}{{ toYaml . }}
{{- else -}}
- namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [{{ .Release.Namespace }}]}]}
{{- end }}
{{- end }}

{{- define "synapse-shards.ingress.controller" -}}
- from:
    {{- range list "gateway" "controller" "test" }}
    - {{ include "synapse-shards.peer" (dict "root" $ "component" .) }}
    {{- end }}
    {{- with .Values.networkPolicies.apiFrom }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- include "synapse-shards.metricsFrom" . | nindent 4 }}
  ports: [{port: 8010, protocol: TCP}]
{{- if .Values.console.enabled }}
{{- /* Browsers come by way of an ingress controller. There are no metrics, and no routes. */}}
- ports: [{port: 8011, protocol: TCP}]
  {{- with .Values.networkPolicies.consoleFrom }}
  from: {{ toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "synapse-shards.ingress.gateway" -}}
{{- /* Clients come by way of an ingress controller, a load balancer or a node. */ -}}
- ports: [{port: 8008, protocol: TCP}]
{{- if .Values.gateway.adminAccess.enabled }}
- ports: [{port: 8449, protocol: TCP}]
  from: {{ toYaml .Values.networkPolicies.adminAccessFrom | nindent 4 }}
{{- end }}
- from: {{ include "synapse-shards.metricsFrom" . | nindent 4 }}
  ports: [{port: 9090, protocol: TCP}]
{{- end }}

{{- define "synapse-shards.ingress.shard" -}}
{{- /* Tenants' ports. The control API is the controller's, and nobody else's but for its metrics. */ -}}
- from: [{{ include "synapse-shards.peer" (dict "root" . "component" "gateway") | fromYaml | toJson }}]
  ports: [{port: 9001, endPort: 65535, protocol: TCP}]
- from: [{{ include "synapse-shards.peer" (dict "root" . "component" "controller") | fromYaml | toJson }}]
- from: {{ include "synapse-shards.metricsFrom" . | nindent 4 }}
  ports: [{port: 9000, protocol: TCP}]
{{- end }}

{{- /* What homeservers talk to in the world, and the servers of the platform that the values name. Private addresses are not in it. */ -}}
{{- define "synapse-shards.egress.world" -}}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: {{ toJson .Values.networkPolicies.privateCIDRs.ipv4 }}
    - ipBlock:
        cidr: ::/0
        except: {{ toJson .Values.networkPolicies.privateCIDRs.ipv6 }}
{{- with .Values.networkPolicies.servers }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "synapse-shards.egress.shard" -}}
{{ include "synapse-shards.egress.world" . }}
{{- end }}

{{- define "synapse-shards.egress.dedicated" -}}
- to: [{namespaceSelector: {}, podSelector: {matchLabels: {app.kubernetes.io/name: synapse}}}]
  ports: [{port: 8008, protocol: TCP}]
{{- end }}

{{- define "synapse-shards.egress.gateway" -}}
- to: [{{ include "synapse-shards.peer" (dict "root" . "component" "controller") | fromYaml | toJson }}]
  ports: [{port: 8010, protocol: TCP}]
- to: [{{ include "synapse-shards.peer" (dict "root" . "component" "shard") | fromYaml | toJson }}]
{{ include "synapse-shards.egress.dedicated" . }}
{{- end }}

{{- define "synapse-shards.egress.controller" -}}
- to: [{{ include "synapse-shards.peer" (dict "root" . "component" "controller") | fromYaml | toJson }}]
  ports: [{port: 8010, protocol: TCP}]
- to: [{{ include "synapse-shards.peer" (dict "root" . "component" "shard") | fromYaml | toJson }}]
{{ include "synapse-shards.egress.dedicated" . }}
{{- /* Their processor time is counted from their metrics. */}}
- to: [{namespaceSelector: {}, podSelector: {matchLabels: {app.kubernetes.io/name: synapse}}}]
  ports: [{port: 9001, protocol: TCP}]
{{- /* The API server is an address that a chart does not know. */}}
- ports:
    {{- range .Values.networkPolicies.apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- with .Values.networkPolicies.prometheus }}
{{ toYaml . }}
{{- end }}
{{ include "synapse-shards.egress.world" . }}
{{- end }}
