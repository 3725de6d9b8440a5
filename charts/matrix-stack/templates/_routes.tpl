{{- /*
What leads requests of a host: an Ingress, an HTTPRoute of the Gateway API, or both.
Call with (dict "root" $ "ingress" … "name" … "host" … "paths" … "adminAccess" …), as for matrix-stack.ingress.
*/ -}}
{{- define "matrix-stack.routes" -}}
{{- $api := .root.Values.gatewayApi -}}
{{- if or (not $api.enabled) $api.ingresses }}
{{ include "matrix-stack.ingress" . }}
{{- end }}
{{- if $api.enabled }}
{{- if not $api.parentRefs }}{{ fail "gatewayApi.enabled is true and gatewayApi.parentRefs is empty; name the Gateway, e.g. [{name: public, namespace: infra}]" }}{{ end }}
{{- if $api.listenerSet.enabled }}
---
{{ include "matrix-stack.listenerSet" . }}
{{- end }}
{{- if or $api.ownRoute (include "matrix-stack.pathsOfOthers" . | fromJsonArray) }}
---
{{ include "matrix-stack.httpRoute" . }}
{{- end }}
{{- end }}
{{- end }}

{{- /* In the namespace of the cluster's gateway, where there is one: a route leads to Services of its own namespace, and to no ExternalName. */ -}}
{{- define "matrix-stack.routeNamespace" -}}
{{- if eq (include "matrix-stack.mode" .) "standalone" }}{{ .Release.Namespace }}{{ else }}{{ .Values.synapse.asTenantHook.namespace }}{{ end -}}
{{- end }}

{{- /* Paths that lead to other Services, as a list in JSON. */ -}}
{{- define "matrix-stack.pathsOfOthers" -}}
{{- $found := list -}}
{{- range .paths }}{{ if and (not (kindIs "string" .)) (eq (.availability | default "") "only_externally") }}{{ $found = append $found . }}{{ end }}{{ end -}}
{{- toJson $found -}}
{{- end }}

{{- define "matrix-stack.httpRoute" -}}
{{- $root := .root -}}
{{- $api := $root.Values.gatewayApi -}}
{{- $namespace := include "matrix-stack.routeNamespace" $root -}}
{{- $standalone := eq (include "matrix-stack.mode" $root) "standalone" -}}
{{- $gateway := printf "%s-gateway" $root.Values.synapse.asTenantHook.clusterId -}}
{{- $homeserver := dict "name" (ternary (printf "%s-synapse" $root.Release.Name) $gateway $standalone) "port" 8008 -}}
{{- $others := include "matrix-stack.pathsOfOthers" . | fromJsonArray -}}
{{- /* One rule leads to a Service by up to 64 paths, and a route has up to 16 rules. */ -}}
{{- $services := dict -}}
{{- range $others -}}
{{- $service := printf "%s:%s" (tpl .service.name $root) (include "matrix-stack.routePort" .) -}}
{{- $_ := set $services $service (append (get $services $service | default list) .path) -}}
{{- end -}}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  # In a namespace that tenants share, the tenant's name is its own, and the release's is not.
  name: {{ ternary .name (printf "%s-%s" (include "matrix-stack.tenantName" $root) (trimPrefix (printf "%s-" $root.Release.Name) .name)) $standalone }}
  namespace: {{ $namespace }}
  labels: {{ include "matrix-stack.labels" (dict "root" $root "component" "synapse") | nindent 4 }}
  {{- with $api.annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  parentRefs:
    {{- if $api.listenerSet.enabled }}
    - {group: gateway.networking.k8s.io, kind: ListenerSet, name: {{ .name }}, namespace: {{ $root.Release.Namespace }}}
    {{- else }}
    {{- toYaml $api.parentRefs | nindent 4 }}
    {{- end }}
  hostnames: [{{ .host | quote }}]
  rules:
    {{- range $service, $paths := $services }}
    {{- $parts := splitList ":" $service }}
    {{- range chunk 64 $paths }}
    - matches:
        {{- range . }}
        - path: {type: PathPrefix, value: {{ . | quote }}}
        {{- end }}
      backendRefs:
        - name: {{ first $parts }}
          {{- if not $standalone }}
          namespace: {{ $root.Release.Namespace }}
          {{- end }}
          port: {{ last $parts }}
    {{- end }}
    {{- end }}
    {{- if .adminAccess }}
    - matches: [{path: {type: PathPrefix, value: /_synapse/admin}}]
      backendRefs: [{name: {{ $gateway }}-admin, port: 8449}]
    {{- end }}
    - matches:
        {{- range .paths }}
        {{- if kindIs "string" . }}
        - path: {type: PathPrefix, value: {{ . | quote }}}
        {{- end }}
        {{- end }}
      backendRefs: [{{ toJson $homeserver }}]
      {{- with $api.timeouts }}
      timeouts: {{ toYaml . | nindent 8 }}
      {{- end }}
{{- if and $others (not $standalone) }}
---
# The route is where the cluster's gateway is, and these Services are here.
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata:
  name: {{ .name }}
  labels: {{ include "matrix-stack.labels" (dict "root" $root "component" "synapse") | nindent 4 }}
spec:
  from:
    - {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {{ $namespace }}}
  to:
    {{- $names := list }}
    {{- range $others }}{{ $names = append $names (tpl .service.name $root) | uniq }}{{ end }}
    {{- range $names }}
    - {group: "", kind: Service, name: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}

{{- define "matrix-stack.routePort" -}}
{{- $port := .service.routePort | default (.service.port).number -}}
{{- if not $port }}{{ fail (printf "additionalPaths: %s has service.port.name, and a route of the Gateway API needs service.port.number" .path) }}{{ end -}}
{{- $port -}}
{{- end }}

{{- /* A listener of its own at a shared Gateway, with the certificate of its host in its own namespace. */ -}}
{{- define "matrix-stack.listenerSet" -}}
{{- $root := .root -}}
{{- $api := $root.Values.gatewayApi -}}
{{- $issuer := $root.Values.certManager -}}
{{- $secret := tpl (.ingress.tlsSecret | default $root.Values.ingress.tlsSecret | default (ternary (printf "%s-tls" .name) "" (not (empty $issuer)))) $root -}}
{{- if not $secret }}{{ fail "gatewayApi.listenerSet.enabled is true and there is no certificate for it; set ingress.tlsSecret, or certManager" }}{{ end -}}
{{- $parent := first $api.parentRefs -}}
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata:
  name: {{ .name }}
  labels: {{ include "matrix-stack.labels" (dict "root" $root "component" "synapse") | nindent 4 }}
  {{- with $issuer }}
  annotations:
    {{- with .clusterIssuer }}
    cert-manager.io/cluster-issuer: {{ . }}
    {{- end }}
    {{- with .issuer }}
    cert-manager.io/issuer: {{ . }}
    {{- end }}
  {{- end }}
spec:
  parentRef:
    name: {{ $parent.name }}
    {{- with $parent.namespace }}
    namespace: {{ . }}
    {{- end }}
  listeners:
    - name: https
      hostname: {{ .host | quote }}
      port: {{ $api.listenerSet.port }}
      protocol: HTTPS
      tls:
        mode: Terminate
        certificateRefs: [{name: {{ $secret }}}]
      allowedRoutes:
        namespaces:
          from: Selector
          selector:
            matchLabels:
              kubernetes.io/metadata.name: {{ include "matrix-stack.routeNamespace" $root }}
{{- end }}
