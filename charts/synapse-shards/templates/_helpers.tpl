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
{{- /* A build, as Flux names the digest of a chart that it took from a registry, is "+…", which no label can have. */ -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "_" }}
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

{{- /* Of the controller's configuration. Here and not there, as its reasons to fail are many. */ -}}
{{- define "synapse-shards.backups" -}}
{{- $values := .Values.backups -}}
{{- $target := $values.target -}}
{{- if eq (empty $target.bucket) (empty $target.claimName) }}{{ fail "backups.enabled is true; say backups.target.bucket or backups.target.claimName, one of them" }}{{ end -}}
{{- if and $target.bucket (empty $target.credentialsSecret) }}{{ fail "backups.target.credentialsSecret is empty; name the Secret with accessKeyId and secretAccessKey of the bucket" }}{{ end -}}
{{- if empty $values.recipient }}{{ fail "backups.recipient is empty; make a key pair with age-keygen, and give the public half, age1…" }}{{ end -}}
{{- $size := $values.scratchSize -}}
{{- $bytes := mul (trimSuffix "Gi" (trimSuffix "Ti" $size) | int64) (ternary 1099511627776 1073741824 (hasSuffix "Ti" $size)) -}}
{{- $place := dict "directory" "/var/backups" -}}
{{- if $target.bucket }}{{ $place = merge (dict "credentialsFile" "/run/synapse-shards/backups") (pick $target "bucket" "prefix" "region") (ternary (dict) (dict "endpoint" $target.endpoint) (empty $target.endpoint)) }}{{ end -}}
{{- /* Helm takes a null out of the values. */ -}}
{{- $tenants := dict -}}
{{- range $name, $own := $values.tenants -}}
{{- $_ := set $tenants $name (merge (ternary (dict "schedule" nil) (dict) (and (hasKey $own "schedule") (empty $own.schedule))) (omit $own "schedule") (ternary (dict) (pick $own "schedule") (empty $own.schedule))) -}}
{{- end -}}
{{- $config := dict "target" $place "recipient" $values.recipient "retention" $values.retention "tenants" $tenants "scratch" (dict "directory" "/scratch" "bytes" $bytes) -}}
{{- with $values.schedule }}{{ $_ := set $config "schedule" . }}{{ end -}}
{{- toYaml $config }}
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
