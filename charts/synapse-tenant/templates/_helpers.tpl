{{- /* Shared with the chart synapse-tenant (charts/share.mjs); what differs between the two is in _chart.tpl. */ -}}
{{- /* tenant: on a shard. dedicated: outside shards, behind the cluster's gateway. standalone: without a cluster. */ -}}
{{- define "matrix-stack.mode" -}}
{{- $hook := .Values.synapse.asTenantHook -}}
{{- $named := and $hook.clusterId $hook.namespace -}}
{{- if $hook.enabled -}}
{{- if not $named }}{{ fail "synapse.asTenantHook.enabled needs synapse.asTenantHook.clusterId (the release of the chart synapse-shards) and synapse.asTenantHook.namespace (its namespace)" }}{{ end -}}
tenant
{{- else if $named -}}dedicated
{{- else if or $hook.clusterId $hook.namespace -}}
{{ fail "synapse.asTenantHook.clusterId and synapse.asTenantHook.namespace belong together: set both, or neither" }}
{{- else -}}standalone{{ end -}}
{{- end }}

{{- /* Refuses what would not work, all at once and in words. */ -}}
{{- define "matrix-stack.validate" -}}
{{- $synapse := .Values.synapse -}}
{{- $problems := (include "chart.problems" . | fromJson).problems | default list -}}
{{- if not (include "matrix-stack.serverName" .) }}{{ $problems = append $problems "serverName is required: what comes after the colon in user ids, e.g. example.org" }}{{ end -}}
{{- if not (include "matrix-stack.host" .) }}{{ $problems = append $problems "synapse.ingress.host is required: where clients reach the homeserver, e.g. matrix.example.org" }}{{ end -}}
{{- $config := include "matrix-stack.additional" . | fromYaml -}}
{{- if not (hasKey $config "database") -}}
{{- range list "host" "user" "database" -}}
{{- if not (get $synapse.postgres .) }}{{ $problems = append $problems (printf "synapse.postgres.%s is required" .) }}{{ end -}}
{{- end -}}
{{- if not $synapse.postgres.password }}{{ $problems = append $problems "synapse.postgres.password is required: {value: …} or {secret: NAME, secretKey: KEY}" }}{{ end -}}
{{- end -}}
{{- if $synapse.media.s3.bucket -}}
{{- range list "accessKeyId" "secretAccessKey" -}}
{{- if not (get $synapse.media.s3 .) }}{{ $problems = append $problems (printf "synapse.media.s3.%s is required with a bucket: {value: …} or {secret: NAME, secretKey: KEY}" .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if eq (include "matrix-stack.mode" .) "tenant" -}}
{{- $stored := or $synapse.media.s3.bucket (hasKey $config "media_storage_providers") (eq (get $config "enable_media_repo" | toString) "false") -}}
{{- if not $stored }}{{ $problems = append $problems "synapse.media.s3.bucket is required as a tenant, which moves between shards and takes no local media along; or set enable_media_repo: false in synapse.additional" }}{{ end -}}
{{- if $synapse.image.digest }}{{ $problems = append $problems "synapse.image.digest is not for tenants: shards are made by tag; use synapse.image.tag" }}{{ end -}}
{{- if gt (len .Release.Name) 53 }}{{ $problems = append $problems "the release's name is longer than 53 characters" }}{{ end -}}
{{- end -}}
{{- range $path := $synapse.ingress.additionalPaths -}}
{{- if kindIs "map" $path -}}
{{- if ne $path.availability "only_externally" }}{{ $problems = append $problems (include "matrix-stack.pathProblem" (dict "root" $ "path" $path)) }}
{{- else if not $path.service }}{{ $problems = append $problems (printf "synapse.ingress.additionalPaths: %s has no service to lead to" $path.path) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $problems = without $problems "" -}}
{{- with $problems }}{{ fail (printf "\n  - %s" (join "\n  - " .)) }}{{ end -}}
{{- end }}

{{- /* Names may be templates of Helm, as in ess-helm. */ -}}
{{- define "matrix-stack.serverName" -}}
{{ tpl (.Values.serverName | default "") . }}
{{- end }}

{{- define "matrix-stack.host" -}}
{{ tpl (.Values.synapse.ingress.host | default "") . }}
{{- end }}

{{- /* A domain may end with a dot, as ess-helm's does: names that are compared have none. */ -}}
{{- define "matrix-stack.clusterDomain" -}}
{{ .Values.clusterDomain | trimSuffix "." }}
{{- end }}

{{- /* Why a path of an availability is not possible, or empty. Call with (dict "root" $ "path" ITEM), the item of synapse.ingress.additionalPaths. */ -}}
{{- define "matrix-stack.pathProblem" -}}
{{- $root := .root -}}
{{- with .path -}}
{{- $path := trimSuffix "/" .path -}}
{{- if eq .availability "internally_and_externally" -}}
synapse.ingress.additionalPaths: {{ .path }} is internally_and_externally, and within the cluster the gateway sends every path to the homeserver; use only_externally, and the other Service itself from within
{{- else if or (hasPrefix "/_matrix" .path) (hasPrefix "/_synapse/client" .path) (has $path (list "" "/_synapse")) -}}
synapse.ingress.additionalPaths: {{ .path }} is blocked, and an Ingress has nothing that would refuse it; have the ingress controller do so, by an annotation of yours
{{- else if and (eq (include "matrix-stack.adminAccess" $root) "true") (or (eq $path "/_synapse/admin") (hasPrefix "/_synapse/admin/" .path)) -}}
synapse.ingress.additionalPaths: {{ .path }} is blocked, and synapse.asTenantHook.adminAccess leads /_synapse/admin to the entrance for administrators; take one of the two away
{{- end -}}
{{- end -}}
{{- end }}

{{- /* Its name in the cluster: releases of one name in several namespaces need different ones. */ -}}
{{- define "matrix-stack.tenantName" -}}
{{ .Values.synapse.asTenantHook.tenantName | default .Release.Name }}
{{- end }}

{{- /* Call with (dict "root" $ "component" "synapse"). */ -}}
{{- define "matrix-stack.selectorLabels" -}}
app.kubernetes.io/name: {{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}-{{ .component }}
{{- end }}

{{- define "matrix-stack.labels" -}}
{{- with .root.Values.labels }}{{ toYaml . }}
{{ end -}}
{{- /* A build, as Flux names the digest of a chart that it took from a registry, is "+…", which no label can have. */ -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "_" }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
{{ include "matrix-stack.selectorLabels" . }}
{{- end }}

{{- define "matrix-stack.imageTag" -}}
{{- $hook := .Values.synapse.asTenantHook -}}
{{- $fleet := dict -}}
{{- if and $hook.clusterId $hook.namespace (.Capabilities.APIVersions.Has "synapse-shards.io/v1alpha1/SynapseFleet") -}}
{{- $fleet = lookup "synapse-shards.io/v1alpha1" "SynapseFleet" $hook.namespace $hook.clusterId -}}
{{- end -}}
{{- .Values.synapse.image.tag | default (dig "spec" "imageTag" "" $fleet) | default (index .Chart.Annotations "synapse-shards.io/default-image-tag") -}}
{{- end }}

{{- define "matrix-stack.image" -}}
{{- with .Values.synapse.image.registry }}{{ . }}/{{ end }}{{ .Values.synapse.image.repository }}
{{- if .Values.synapse.image.digest }}@{{ .Values.synapse.image.digest }}{{ else }}:{{ include "matrix-stack.imageTag" . }}{{ end -}}
{{- end }}

{{- define "matrix-stack.serviceAccountName" -}}
{{- $account := .Values.synapse.serviceAccount -}}
{{- if $account.create }}{{ $account.name | default (printf "%s-synapse" .Release.Name) }}{{ else }}{{ $account.name | default "default" }}{{ end -}}
{{- end }}

{{- /* Where the ingresses lead: one name in all modes, so that a switch changes nothing but what is behind it. */ -}}
{{- define "matrix-stack.backend" -}}
{{ .Release.Name }}-{{ if eq (include "matrix-stack.mode" .) "standalone" }}synapse{{ else }}gateway{{ end }}
{{- end }}

{{- define "matrix-stack.adminAccess" -}}
{{- if and .Values.synapse.asTenantHook.adminAccess (ne (include "matrix-stack.mode" .) "standalone") }}true{{ end -}}
{{- end }}

{{- define "matrix-stack.serverHost" -}}
{{ regexReplaceAll ":[0-9]+$" (include "matrix-stack.serverName" .) "" }}
{{- end }}

{{- define "matrix-stack.tls" -}}
{{- $own := .ingress.tlsEnabled -}}
{{- if kindIs "invalid" $own }}{{ .root.Values.ingress.tlsEnabled }}{{ else }}{{ $own }}{{ end -}}
{{- end }}

{{- /*
Call with (dict "root" $ "ingress" VALUES "name" NAME "host" HOST "paths" PATHS "adminAccess" WHETHER). A path is text, and leads to the homeserver,
or {path, availability, service}, as ess-helm has them.
*/ -}}
{{- define "matrix-stack.ingress" -}}
{{- $root := .root -}}
{{- $tls := eq (include "matrix-stack.tls" .) "true" -}}
{{- $issuer := $root.Values.certManager -}}
{{- $annotations := merge (dict) .ingress.annotations $root.Values.ingress.annotations -}}
{{- if and $tls $issuer.clusterIssuer }}{{ $_ := set $annotations "cert-manager.io/cluster-issuer" $issuer.clusterIssuer }}{{ end -}}
{{- if and $tls $issuer.issuer }}{{ $_ := set $annotations "cert-manager.io/issuer" $issuer.issuer }}{{ end -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ .name }}
  labels: {{ include "matrix-stack.labels" (dict "root" $root "component" "synapse") | nindent 4 }}
  {{- with $annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .ingress.className | default $root.Values.ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- if $tls }}
  tls:
    - hosts: [{{ .host | quote }}]
      {{- with .ingress.tlsSecret | default $root.Values.ingress.tlsSecret | default (ternary (printf "%s-tls" .name) "" (not (empty $issuer))) }}
      secretName: {{ tpl . $root }}
      {{- end }}
  {{- end }}
  rules:
    - host: {{ .host | quote }}
      http:
        paths:
          {{- range .paths }}
          {{- if kindIs "string" . }}
          - path: {{ . }}
            pathType: Prefix
            backend: {service: {name: {{ include "matrix-stack.backend" $root }}, port: {name: http}}}
          {{- else if eq .availability "only_externally" }}
          - path: {{ .path }}
            pathType: Prefix
            backend: {service: {name: {{ tpl .service.name $root }}, port: {{ toJson .service.port }}}}
          {{- end }}
          {{- end }}
          {{- if .adminAccess }}
          - path: /_synapse/admin
            pathType: Prefix
            backend: {service: {name: {{ $root.Release.Name }}-gateway-admin, port: {name: http}}}
          {{- end }}
{{- end }}
