{{- /*
Nothing that is secret is read or made up when the chart is rendered, so the same values always give the same manifests. What the values give
is in the Secret RELEASE-synapse-tenant; what they name is in Secrets of the release's namespace, which the controller or the dedicated
Synapse's pod reads; keys that are not given are made by a Job, once.
*/ -}}

{{- /* The keys, as in a tenant's Secret, by the name of their value. */ -}}
{{- define "matrix-stack.keyNames" -}}
{{- dict "signingKey" "signing.key" "macaroon" "macaroon-secret-key" "registrationSharedSecret" "registration-shared-secret" "formSecret" "form-secret" | toJson -}}
{{- end }}

{{- /* The keys that are made, by the name of their value: theirs in the Secret RELEASE-generated. */ -}}
{{- define "matrix-stack.madeKeys" -}}
{{- $names := dict "signingKey" "SYNAPSE_SIGNING_KEY" "macaroon" "SYNAPSE_MACAROON" "registrationSharedSecret" "SYNAPSE_REGISTRATION_SHARED_SECRET" "formSecret" "SYNAPSE_FORM_SECRET" -}}
{{- $made := dict -}}
{{- $missing := list -}}
{{- range $name, $key := $names -}}
{{- if not (get $.Values.synapse $name) }}{{ $_ := set $made $name $key }}{{ $missing = append $missing (printf "synapse.%s" $name) }}{{ end -}}
{{- end -}}
{{- if and $missing (not .Values.initSecrets.enabled) }}{{ fail (printf "initSecrets.enabled is false, so these must be given: %s" (sortAlpha $missing | join ", ")) }}{{ end -}}
{{- toJson $made -}}
{{- end }}

{{- /*
What is in other Secrets: a list of {for, path?, name, key}, as in spec.secretRefs of a SynapseTenant. Sorted, so that it is always the same.
*/ -}}
{{- define "matrix-stack.secretRefs" -}}
{{- $refs := list -}}
{{- $synapse := .Values.synapse -}}
{{- range $name := keys $synapse.additional | sortAlpha -}}
{{- with get $synapse.additional $name -}}
{{- if .configSecret }}{{ $refs = append $refs (dict "for" "homeserver.yaml" "name" (tpl .configSecret $) "key" (tpl .configSecretKey $)) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if and $synapse.postgres.host ($synapse.postgres.password | default dict).secret -}}
{{- $refs = append $refs (dict "for" "homeserver.yaml" "path" "/database/args/password" "name" (tpl $synapse.postgres.password.secret $) "key" (tpl $synapse.postgres.password.secretKey $)) -}}
{{- end -}}
{{- if $synapse.media.s3.bucket -}}
{{- range $value, $option := dict "accessKeyId" "access_key_id" "secretAccessKey" "secret_access_key" -}}
{{- with get $synapse.media.s3 $value -}}
{{- if .secret }}{{ $refs = append $refs (dict "for" "homeserver.yaml" "path" (printf "/media_storage_providers/0/config/%s" $option) "name" (tpl .secret $) "key" (tpl .secretKey $)) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $synapse.appservices -}}
{{- if .secret }}{{ $refs = append $refs (dict "for" "app-service" "name" (tpl .secret $) "key" (tpl .secretKey $)) }}
{{- else }}{{ $refs = append $refs (dict "for" "app-service" "configMap" (tpl .configMap $) "key" (tpl .configMapKey $)) }}{{ end -}}
{{- end -}}
{{- range (include "chart.secretRefs" . | fromJson).refs }}{{ $refs = append $refs . }}{{ end -}}
{{- $made := include "matrix-stack.madeKeys" . | fromJson -}}
{{- range $name, $for := include "matrix-stack.keyNames" . | fromJson -}}
{{- if hasKey $made $name }}{{ $refs = append $refs (dict "for" $for "name" (printf "%s-generated" $.Release.Name) "key" (get $made $name)) }}
{{- else -}}
{{- with get $synapse $name -}}
{{- if .secret }}{{ $refs = append $refs (dict "for" $for "name" (tpl .secret $) "key" (tpl .secretKey $)) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "refs" $refs | toJson -}}
{{- end }}

{{- /* The names of all Secrets that are read. */ -}}
{{- define "matrix-stack.secretNames" -}}
{{- $names := list (printf "%s-synapse-tenant" .Release.Name) -}}
{{- range (include "matrix-stack.secretRefs" . | fromJson).refs -}}
{{- if .name }}{{ $names = append $names .name }}{{ end -}}
{{- end -}}
{{- $names | uniq | sortAlpha | toJson -}}
{{- end }}

{{- /* Secrets that a Job makes, with the keys that it makes in each. */ -}}
{{- define "matrix-stack.madeSecrets" -}}
{{- $secrets := include "chart.madeSecrets" . | fromJson -}}
{{- with include "matrix-stack.madeKeys" . | fromJson }}{{ $_ := set $secrets (printf "%s-generated" $.Release.Name) (values . | sortAlpha) }}{{ end -}}
{{- toJson $secrets -}}
{{- end }}
