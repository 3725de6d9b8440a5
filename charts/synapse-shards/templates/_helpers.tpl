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

{{- /* For hosts of tenants, to the Service of its name. */ -}}
{{- define "synapse-shards.gatewayIngress" -}}
{{- $service := printf "%s-%s" .root.Release.Name .name -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ $service }}
  labels: {{ include "synapse-shards.labels" (dict "root" .root "component" "gateway") | nindent 4 }}
  {{- with .ingress.annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- if .ingress.tlsEnabled }}
  tls:
    - hosts: {{ toYaml .ingress.hosts | nindent 8 }}
      {{- with .ingress.tlsSecret }}
      secretName: {{ . }}
      {{- end }}
  {{- end }}
  rules:
    {{- $path := .path }}
    {{- range .ingress.hosts }}
    - host: {{ . | quote }}
      http:
        paths:
          - path: {{ $path }}
            pathType: Prefix
            backend: {service: {name: {{ $service }}, port: {name: http}}}
    {{- end }}
{{- end }}
