{{- /* The cluster's id is the name of the release. */ -}}
{{- define "synapse-shards.clusterId" -}}
{{- if gt (len .Release.Name) 40 }}{{ fail (printf "the release name %q is longer than 40 characters, and names of shards are made from it; choose a shorter one" .Release.Name) }}{{ end -}}
{{- .Release.Name -}}
{{- end }}

{{- /* Call with (dict "root" $ "component" "gateway"). */ -}}
{{- define "synapse-shards.selectorLabels" -}}
app.kubernetes.io/name: synapse-shards
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "synapse-shards.labels" -}}
{{- with .root.Values.labels }}{{ toYaml . }}
{{ end -}}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: synapse-shards
synapse-shards.io/cluster: {{ .root.Release.Name }}
{{ include "synapse-shards.selectorLabels" . }}
{{- end }}

{{- define "synapse-shards.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- with .Values.image.registry }}{{ . }}/{{ end }}{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ $tag }}{{ end -}}
{{- end }}

{{- /* Call with (dict "root" $ "component" "gateway"). */ -}}
{{- define "synapse-shards.serviceAccountName" -}}
{{- $values := index .root.Values .component -}}
{{- if $values.serviceAccount.create }}{{ $values.serviceAccount.name | default (printf "%s-%s" .root.Release.Name .component) }}{{ else }}{{ $values.serviceAccount.name | default "default" }}{{ end -}}
{{- end }}

{{- /* What the pods of controller and gateway have in common. */ -}}
{{- define "synapse-shards.podSpec" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "synapse-shards.serviceAccountName" . }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext: {{ toYaml $values.podSecurityContext | nindent 2 }}
{{- with $values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
  - {{ toYaml (mergeOverwrite (dict "labelSelector" (dict "matchLabels" (include "synapse-shards.selectorLabels" $ | fromYaml))) .) | nindent 4 | trim }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The Secret with the tokens of the API, which the controller makes if the values name none. */ -}}
{{- define "synapse-shards.tokensSecret" -}}
{{ .Values.tokens.existingSecret | default (printf "%s-tokens" .Release.Name) }}
{{- end }}

{{- define "synapse-shards.probe" -}}
httpGet: {{ toYaml .get | nindent 2 }}
{{ toYaml .values }}
{{- end }}

{{- /* The Secret with the secret of the console at its identity provider; empty: there is none. */ -}}
{{- define "synapse-shards.oidcSecret" -}}
{{- if and .Values.console.enabled .Values.console.signIn.oidc }}{{ .Values.console.signIn.oidcSecret.name }}{{ end }}
{{- end }}

{{- /* The Secret with the token for the Prometheus of the plots, where there is one. */ -}}
{{- define "synapse-shards.prometheusSecret" -}}
{{- if .Values.history.prometheus.url }}{{ .Values.history.prometheus.tokenSecret.name }}{{ end }}
{{- end }}

{{- /*
What leads hosts to a Service of the chart: an Ingress, an HTTPRoute of the Gateway API, or both.
Call with (dict "root" $ "name" SUFFIX "component" … "ingress" VALUES "hosts" HOSTS "path" "/" "service" NAME "port" (dict "name" … "number" …)).
*/ -}}
{{- define "synapse-shards.routes" -}}
{{- $api := .root.Values.gatewayApi -}}
{{- $with := merge (dict "object" (printf "%s-%s" .root.Release.Name .name)) . -}}
{{- if or (not $api.enabled) $api.ingresses }}
{{ include "synapse-shards.ingress" $with }}
{{- end }}
{{- if $api.enabled }}
{{- if not $api.parentRefs }}{{ fail "gatewayApi.enabled is true and gatewayApi.parentRefs is empty; name the Gateway, e.g. [{name: public, namespace: infra}]" }}{{ end }}
---
{{ include "synapse-shards.httpRoute" $with }}
{{- end }}
{{- end }}

{{- define "synapse-shards.ingress" -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ .object }}
  labels: {{ include "synapse-shards.labels" (dict "root" .root "component" .component) | nindent 4 }}
  {{- with .ingress.annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- if .ingress.tlsEnabled }}
  tls:
    - hosts: {{ toYaml .hosts | nindent 8 }}
      {{- with .ingress.tlsSecret }}
      secretName: {{ . }}
      {{- end }}
  {{- end }}
  rules:
    {{- $to := . }}
    {{- range .hosts }}
    - host: {{ . | quote }}
      http:
        paths:
          - path: {{ $to.path }}
            pathType: Prefix
            backend: {service: {name: {{ $to.service }}, port: {name: {{ $to.port.name }}}}}
    {{- end }}
{{- end }}

{{- define "synapse-shards.httpRoute" -}}
{{- $api := .root.Values.gatewayApi -}}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {{ .object }}
  labels: {{ include "synapse-shards.labels" (dict "root" .root "component" .component) | nindent 4 }}
  {{- with $api.annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  parentRefs: {{ toYaml $api.parentRefs | nindent 4 }}
  hostnames: {{ toYaml .hosts | nindent 4 }}
  rules:
    - matches: [{path: {type: PathPrefix, value: {{ .path }}}}]
      backendRefs: [{name: {{ .service }}, port: {{ .port.number }}}]
      {{- with $api.timeouts }}
      timeouts: {{ toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
