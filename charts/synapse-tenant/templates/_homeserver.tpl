{{- /* What the user adds in the values: by the order of names, and a top-level key of a later part replaces that of an earlier one, as Synapse does with several files. */ -}}
{{- define "matrix-stack.additional" -}}
{{- $config := dict -}}
{{- range $name := keys .Values.synapse.additional | sortAlpha -}}
{{- $part := get $.Values.synapse.additional $name -}}
{{- $path := printf "synapse.additional.%s" $name -}}
{{- $parsed := fromYaml ($part.config | default "") -}}
{{- if and (hasKey $parsed "Error") (eq (len $parsed) 1) }}{{ fail (printf "%s is not a YAML mapping of options to values: %s" $path $parsed.Error) }}{{ end -}}
{{- range $key, $value := $parsed }}{{ $_ := set $config $key $value }}{{ end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- /* The homeserver's own part of homeserver.yaml: the same on a shard and dedicated. What is in Secrets comes to it where it is read. */ -}}
{{- define "matrix-stack.homeserver" -}}
{{- $synapse := .Values.synapse -}}
{{- $scheme := ternary "https" "http" (eq (include "matrix-stack.tls" (dict "root" . "ingress" $synapse.ingress)) "true") -}}
{{- $config := dict -}}
{{- range $key, $value := include "matrix-stack.additional" . | fromYaml }}{{ $_ := set $config $key $value }}{{ end -}}
{{- $host := include "matrix-stack.host" . -}}
{{- range $key, $value := include "chart.options" . | fromYaml -}}
{{- if kindIs "map" $value }}{{ $value = merge (dict) $value (get $config $key | default dict) }}{{ end -}}
{{- $_ := set $config $key $value -}}
{{- end -}}
{{- $_ := set $config "public_baseurl" (printf "%s://%s/" $scheme $host) -}}
{{- $_ := set $config "max_upload_size" $synapse.media.maxUploadSize -}}
{{- with $synapse.postgres -}}
{{- if .host -}}
{{- $args := dict "host" (tpl .host $) "port" (int .port) "user" .user "dbname" .database "sslmode" .sslMode "cp_min" 1 "cp_max" 5 -}}
{{- if (.password | default dict).value }}{{ $_ := set $args "password" .password.value }}{{ end -}}
{{- $_ := set $config "database" (dict "name" "psycopg2" "args" $args) -}}
{{- end -}}
{{- end -}}
{{- with $synapse.media.s3 -}}
{{- if .bucket -}}
{{- $s3 := dict "bucket" .bucket -}}
{{- if (.accessKeyId | default dict).value }}{{ $_ := set $s3 "access_key_id" .accessKeyId.value }}{{ end -}}
{{- if (.secretAccessKey | default dict).value }}{{ $_ := set $s3 "secret_access_key" .secretAccessKey.value }}{{ end -}}
{{- with .endpoint }}{{ $_ := set $s3 "endpoint_url" . }}{{ end -}}
{{- with .region }}{{ $_ := set $s3 "region_name" . }}{{ end -}}
{{- with .prefix }}{{ $_ := set $s3 "prefix" . }}{{ end -}}
{{- /* Synchronous: what was answered with a media id is in the bucket, whatever happens to the process next. */ -}}
{{- $provider := dict "module" "s3_storage_provider.S3StorageProviderBackend" "store_local" true "store_remote" true "store_synchronous" true "config" $s3 -}}
{{- $_ := set $config "media_storage_providers" (list $provider) -}}
{{- end -}}
{{- end -}}
{{- with .Values.wellKnownDelegation -}}
{{- if include "chart.servesWellKnown" $ -}}
{{- $client := include "matrix-stack.wellKnownAdditional" (dict "root" $ "kind" "client") | fromJson -}}
{{- $_ := set $config "serve_server_wellknown" true -}}
{{- with merge (get $config "extra_well_known_client_content" | default dict) $client }}{{ $_ := set $config "extra_well_known_client_content" . }}{{ end -}}
{{- $server := dict "m.server" (printf "%s:%s" $host (ternary "443" "80" (eq $scheme "https"))) -}}
{{- $content := dict "server" (merge $server (include "matrix-stack.wellKnownAdditional" (dict "root" $ "kind" "server") | fromJson)) -}}
{{- with include "matrix-stack.wellKnownAdditional" (dict "root" $ "kind" "support") | fromJson }}{{ $_ := set $content "support" . }}{{ end -}}
{{- $modules := append (get $config "modules" | default list) (dict "module" "multi_synapse.well_known.WellKnown" "config" $content) -}}
{{- $_ := set $config "modules" $modules -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- define "matrix-stack.wellKnownAdditional" -}}
{{- $text := get .root.Values.wellKnownDelegation.additional .kind | default "{}" -}}
{{- $parsed := fromJson $text -}}
{{- if hasKey $parsed "Error" }}{{ fail (printf "wellKnownDelegation.additional.%s is not a JSON object: %s" .kind $parsed.Error) }}{{ end -}}
{{- toJson $parsed -}}
{{- end }}

{{- /* The data of the Secret with the homeserver's configuration and the keys that the values give. */ -}}
{{- define "matrix-stack.tenantSecret" -}}
{{- $data := dict "homeserver.yaml" (include "matrix-stack.homeserver" . | b64enc) -}}
{{- range $name, $key := include "matrix-stack.keyNames" . | fromJson -}}
{{- with get $.Values.synapse $name -}}
{{- if .value }}{{ $_ := set $data $key (trim .value | b64enc) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toYaml $data -}}
{{- end }}

{{- /* What only a dedicated Synapse has; comes after the other file, and so wins. The keys are added to it in the pod. */ -}}
{{- define "matrix-stack.dedicatedConfig" -}}
{{- $http := dict "port" 8008 "type" "http" "tls" false "x_forwarded" true "resources" (list (dict "names" (list "client" "federation") "compress" false)) -}}
{{- $dedicated := dict
  "server_name" (include "matrix-stack.serverName" .)
  "listeners" (list $http (dict "port" 9001 "type" "metrics" "bind_addresses" (list "0.0.0.0")))
  "enable_metrics" true
  "signing_key_path" "/etc/synapse/config/signing.key"
  "log_config" "/etc/synapse/chart/log.yaml"
  "media_store_path" "/var/lib/synapse/media"
  "pid_file" "/tmp/homeserver.pid"
  "daemonize" false -}}
{{- $files := dict -}}
{{- if include "matrix-stack.hasWorkers" . -}}
{{- $dedicated = merge (dict) (include "matrix-stack.workerOptions" . | fromJson) $dedicated -}}
{{- $files = include "matrix-stack.workerFiles" . | fromYaml -}}
{{- end -}}
{{- $refs := (include "matrix-stack.secretRefs" . | fromJson).refs | default list -}}
{{- dict "dedicated.yaml" (toYaml $dedicated) "log.yaml" (include "matrix-stack.log" .) "refs.json" (toJson $refs) "compose.py" (.Files.Get "files/compose.py") | merge $files | toYaml -}}
{{- end }}

{{- define "matrix-stack.log" -}}
{{- $loggers := dict -}}
{{- range $name, $level := .Values.synapse.logging.levelOverrides }}{{ $_ := set $loggers $name (dict "level" $level) }}{{ end -}}
{{- $format := "%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s" -}}
{{- toYaml (dict
  "version" 1
  "disable_existing_loggers" false
  "formatters" (dict "precise" (dict "format" $format))
  "handlers" (dict "console" (dict "class" "logging.StreamHandler" "formatter" "precise"))
  "loggers" $loggers
  "root" (dict "level" .Values.synapse.logging.rootLevel "handlers" (list "console"))
) -}}
{{- end }}
