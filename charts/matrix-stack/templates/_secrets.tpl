{{- /*
The content of a credential: `value`, or what a Secret of the release's namespace holds. Read when the chart is rendered, since a tenant's
Secret is in another namespace, where it cannot be mounted from. Call with (dict "root" $ "path" "synapse.macaroon" "credential" VALUE).
*/ -}}
{{- define "matrix-stack.credential" -}}
{{- with .credential -}}
{{- if hasKey . "value" }}{{ .value -}}
{{- else -}}
{{- include "matrix-stack.secretContent" (dict "root" $.root "path" $.path "secret" .secret "key" .secretKey) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "matrix-stack.secretContent" -}}
{{- $namespace := .root.Release.Namespace -}}
{{- $found := lookup "v1" "Secret" $namespace .secret -}}
{{- if not $found -}}
{{ fail (printf "%s names the Secret %q, which is not in the namespace %q or cannot be read there. Existing Secrets are read when the chart is installed: create it before; and `helm template` and `--dry-run=client`, which ask no cluster, need the value itself" .path .secret $namespace) }}
{{- end -}}
{{- if not (hasKey ($found.data | default dict) .key) -}}
{{ fail (printf "%s names the key %q, which the Secret %q in the namespace %q does not have; it has: %s" .path .key .secret $namespace (keys ($found.data | default dict) | sortAlpha | join ", ")) }}
{{- end -}}
{{- get $found.data .key | b64dec -}}
{{- end }}

{{- /*
The homeserver's keys, as JSON: those that are given, else those that were made before, else new ones. They are the same in all modes, and in a
Secret of the release that a switch of modes does not touch. Without a cluster in sight nobody knows whether keys exist, so none are made up.
*/ -}}
{{- define "matrix-stack.keys" -}}
{{- if not (hasKey .Values "madeKeys") -}}
{{- include "matrix-stack.validate" . -}}
{{- $names := dict "signingKey" "SYNAPSE_SIGNING_KEY" "macaroon" "SYNAPSE_MACAROON" "registrationSharedSecret" "SYNAPSE_REGISTRATION_SHARED_SECRET" "formSecret" "SYNAPSE_FORM_SECRET" -}}
{{- $kept := lookup "v1" "Secret" .Release.Namespace (printf "%s-generated" .Release.Name) -}}
{{- $given := dict -}}
{{- $made := dict -}}
{{- $missing := list -}}
{{- range $name, $key := $names -}}
{{- $credential := get $.Values.synapse $name -}}
{{- if $credential -}}
{{- $_ := set $given $name (include "matrix-stack.credential" (dict "root" $ "path" (printf "synapse.%s" $name) "credential" $credential) | trim) -}}
{{- else if hasKey ($kept.data | default dict) $key -}}
{{- $_ := set $made $name (get $kept.data $key | b64dec) -}}
{{- else -}}
{{- $missing = append $missing $name -}}
{{- end -}}
{{- end -}}
{{- if $missing -}}
{{- $list := printf "synapse.%s" (sortAlpha $missing | join ", synapse.") -}}
{{- if not .Values.initSecrets.enabled }}{{ fail (printf "initSecrets.enabled is false, so these must be given: %s" $list) }}{{ end -}}
{{- if eq (include "matrix-stack.seesCluster" .) "false" -}}
{{ fail (printf "%s: not given, and no cluster can be asked for those that exist. New keys at each run would log out every user and break federation. With `helm template` or `--dry-run=client`, give them; else install directly, or use `--dry-run=server`" $list) }}
{{- end -}}
{{- range $missing -}}
{{- if eq . "signingKey" -}}
{{- $_ := set $made . (printf "ed25519 a_%s %s" (randAlphaNum 6) (randBytes 32 | trimSuffix "=")) -}}
{{- else -}}
{{- $_ := set $made . (randAlphaNum 48) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $kept := dict -}}
{{- range $name, $value := $made }}{{ $_ := set $kept (get $names $name) $value }}{{ end -}}
{{- /* Each template of the chart sees the same values: what is random must be made once. */ -}}
{{- $_ := set .Values "madeKeys" (dict "all" (merge (dict) $given $made) "kept" $kept) -}}
{{- end -}}
{{- toJson .Values.madeKeys -}}
{{- end }}

{{- /* Every namespace has this account. Where the namespace is only about to be created, who may do that may also see others. */ -}}
{{- define "matrix-stack.seesCluster" -}}
{{- if lookup "v1" "ServiceAccount" .Release.Namespace "default" }}true{{ else if lookup "v1" "Namespace" "" "kube-system" }}true{{ else }}false{{ end -}}
{{- end }}
