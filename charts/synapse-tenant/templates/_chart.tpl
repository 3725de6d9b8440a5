{{- /* What differs from the chart matrix-stack, which the other templates with these names are from (charts/share.mjs). */ -}}
{{- define "chart.enabled" -}}
true
{{- end }}

{{- /* /.well-known/matrix/ has one owner: ess-helm, or whoever serves the server name otherwise. */ -}}
{{- define "chart.servesWellKnown" -}}
{{- end }}

{{- /* A Service of ess-helm. Call with (dict "root" $ "name" SUFFIX). */ -}}
{{- define "chart.ess" -}}
{{ .root.Values.ess.release }}-{{ .name }}.{{ .root.Release.Namespace }}.svc.{{ include "matrix-stack.clusterDomain" .root }}
{{- end }}

{{- /* Options that follow from what ess-helm runs. */ -}}
{{- define "chart.options" -}}
{{- $given := include "matrix-stack.additional" . | fromYaml -}}
{{- $options := dict -}}
{{- $experiments := dict -}}
{{- if .Values.matrixAuthenticationService.enabled -}}
{{- $url := printf "http://%s:8080/" (include "chart.ess" (dict "root" . "name" "matrix-authentication-service")) -}}
{{- $_ := set $options "matrix_authentication_service" (dict "enabled" true "endpoint" $url "force_http2" true) -}}
{{- $_ := set $options "password_config" (dict "enabled" false "localdb_enabled" false) -}}
{{- /* Login by QR code, which needs it. */ -}}
{{- $_ := set $experiments "msc4108_enabled" true -}}
{{- end -}}
{{- if .Values.matrixRTC.enabled -}}
{{- $transport := dict "type" "livekit" "livekit_service_url" (printf "https://%s" (tpl .Values.matrixRTC.ingress.host .)) -}}
{{- $_ := set $options "matrix_rtc" (dict "transports" (list $transport)) -}}
{{- /* Where clients find it (4143), and a state of the room that is right after a gap (4222). */ -}}
{{- $_ := set $experiments "msc4143_enabled" true -}}
{{- $_ := set $experiments "msc4222_enabled" true -}}
{{- if not (hasKey $given "max_event_delay_duration") }}{{ $_ := set $options "max_event_delay_duration" "24h" }}{{ end -}}
{{- end -}}
{{- if .Values.hookshot.enabled -}}
{{- range list "msc2409_to_device_messages_enabled" "msc3202_device_masquerading" "msc3202_transaction_extensions" }}{{ $_ := set $experiments . true }}{{ end -}}
{{- end -}}
{{- $web := .Values.elementWeb -}}
{{- if and $web.enabled $web.ingress.host (not (hasKey $given "web_client_location")) -}}
{{- $_ := set $options "web_client_location" (printf "https://%s/" (tpl $web.ingress.host .)) -}}
{{- end -}}
{{- with $experiments }}{{ $_ := set $options "experimental_features" . }}{{ end -}}
{{- toYaml $options -}}
{{- end }}

{{- /* The secret that Matrix Authentication Service and the homeserver share: {name, key}, or {}. */ -}}
{{- define "chart.masSecret" -}}
{{- $shared := .Values.matrixAuthenticationService.synapseSharedSecret | default dict -}}
{{- $found := dict -}}
{{- if and .Values.matrixAuthenticationService.enabled $shared.secret -}}
{{- $found = dict "name" (tpl $shared.secret .) "key" (tpl ($shared.secretKey | default "") .) -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}

{{- define "chart.secretRefs" -}}
{{- $refs := list -}}
{{- with include "chart.masSecret" . | fromJson -}}
{{- $refs = append $refs (dict "for" "homeserver.yaml" "path" "/matrix_authentication_service/secret" "name" .name "key" .key) -}}
{{- end -}}
{{- if .Values.hookshot.enabled -}}
{{- $given := .Values.hookshot.appserviceRegistration | default dict -}}
{{- $name := printf "%s-generated" .Values.ess.release -}}
{{- $key := "HOOKSHOT_REGISTRATION" -}}
{{- if $given.secret }}{{ $name = tpl $given.secret . }}{{ $key = tpl $given.secretKey . }}
{{- else if $given.value }}{{ $name = printf "%s-hookshot" .Values.ess.release }}{{ $key = "REGISTRATION" }}{{ end -}}
{{- $refs = append $refs (dict "for" "app-service" "name" $name "key" $key) -}}
{{- end -}}
{{- dict "refs" $refs | toJson -}}
{{- end }}

{{- define "chart.madeSecrets" -}}
{{- $own := printf "%s-mas" .Release.Name -}}
{{- $made := dict -}}
{{- with include "chart.masSecret" . | fromJson -}}
{{- if and (eq .name $own) $.Values.initSecrets.enabled }}{{ $_ := set $made .name (list .key) }}{{ end -}}
{{- end -}}
{{- toJson $made -}}
{{- end }}

{{- /* The names by which ess-helm's components call the homeserver, and further ones. */ -}}
{{- define "chart.hosts" -}}
{{- $service := include "chart.ess" (dict "root" . "name" "synapse") -}}
{{- $short := printf "%s-synapse.%s.svc" .Values.ess.release .Release.Namespace -}}
{{- $hosts := list $service $short -}}
{{- range .Values.synapse.hosts }}{{ $hosts = append $hosts (tpl . $ | trimSuffix ".") }}{{ end -}}
{{- dict "hosts" (uniq $hosts) | toJson -}}
{{- end }}

{{- define "chart.problems" -}}
{{- $synapse := .Values.synapse -}}
{{- $mas := .Values.matrixAuthenticationService -}}
{{- $shared := $mas.synapseSharedSecret | default dict -}}
{{- $problems := list -}}
{{- $own := printf "%s-mas" .Release.Name -}}
{{- if $synapse.enabled }}{{ $problems = append $problems "synapse.enabled is true, and ess-helm would run a second homeserver of that name: set it to false in the values of both charts" }}{{ end -}}
{{- if eq .Release.Name .Values.ess.release }}{{ $problems = append $problems (printf "this release has the name of ess-helm's (ess.release), %s: give it another one, e.g. %s-tenant" .Release.Name .Release.Name) }}{{ end -}}
{{- if and $mas.enabled (not $shared.secret) -}}
{{- $why := ternary "ess-helm writes a value nowhere while synapse.enabled is false; " "" (not (empty $shared.value)) -}}
{{- $problems = append $problems (printf "matrixAuthenticationService.synapseSharedSecret: %sset {secret: %s, secretKey: SYNAPSE_SHARED_SECRET} in the values of both charts, and it is made; or name a Secret of yours" $why $own) -}}
{{- end -}}
{{- if and $mas.enabled $shared.secret (not .Values.initSecrets.enabled) (eq (tpl ($shared.secret | default "") .) $own) -}}
{{- $problems = append $problems (printf "matrixAuthenticationService.synapseSharedSecret names %s, which initSecrets.enabled: false leaves unmade; name a Secret of yours" $own) -}}
{{- end -}}
{{- if and $mas.enabled ($mas.syn2mas | default dict).enabled }}{{ $problems = append $problems "matrixAuthenticationService.syn2mas.enabled: the migration is of ess-helm's own Synapse; finish it there first" }}{{ end -}}
{{- if and .Values.matrixRTC.enabled (not .Values.matrixRTC.ingress.host) }}{{ $problems = append $problems "matrixRTC.ingress.host is required while matrixRTC.enabled is true, as with ess-helm" }}{{ end -}}
{{- range $name, $worker := $synapse.workers -}}
{{- if (default dict $worker).enabled }}{{ $problems = append $problems (printf "synapse.workers.%s: a tenant is one Synapse without workers" $name) }}{{ end -}}
{{- end -}}
{{- range list "extraArgs" "extraVolumes" "extraVolumeMounts" "extraInitContainers" "extraEnv" "hostAliases" -}}
{{- if get $synapse . }}{{ $problems = append $problems (printf "synapse.%s: a shard's pods are no tenant's own; take it out" .) }}{{ end -}}
{{- end -}}
{{- if $synapse.redis }}{{ $problems = append $problems "synapse.redis: a tenant is one Synapse without workers, and needs none" }}{{ end -}}
{{- range $synapse.appservices -}}
{{- if .configMap }}{{ $problems = append $problems (printf "synapse.appservices: the ConfigMap %s is not for tenants: a registration has tokens, and the controller reads Secrets alone; use secret and secretKey" .configMap) }}{{ end -}}
{{- end -}}
{{- dict "problems" $problems | toJson -}}
{{- end }}
