{{- /* What the user adds: by the order of names, and a top-level key of a later part replaces that of an earlier one, as Synapse does with several files. */ -}}
{{- define "matrix-stack.additional" -}}
{{- $config := dict -}}
{{- range $name := keys .Values.synapse.additional | sortAlpha -}}
{{- $part := get $.Values.synapse.additional $name -}}
{{- $path := printf "synapse.additional.%s" $name -}}
{{- $text := $part.config | default "" -}}
{{- if $part.configSecret }}{{ $text = include "matrix-stack.secretContent" (dict "root" $ "path" $path "secret" $part.configSecret "key" $part.configSecretKey) }}{{ end -}}
{{- $parsed := fromYaml $text -}}
{{- if and (hasKey $parsed "Error") (eq (len $parsed) 1) }}{{ fail (printf "%s is not a YAML mapping of options to values: %s" $path $parsed.Error) }}{{ end -}}
{{- range $key, $value := $parsed }}{{ $_ := set $config $key $value }}{{ end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- /* The homeserver's own part of homeserver.yaml: the same on a shard and with a Synapse of its own. */ -}}
{{- define "matrix-stack.homeserver" -}}
{{- $synapse := .Values.synapse -}}
{{- $scheme := ternary "https" "http" (eq (include "matrix-stack.tls" (dict "root" . "ingress" $synapse.ingress)) "true") -}}
{{- $config := dict "report_stats" false "trusted_key_servers" list "suppress_key_server_warning" true -}}
{{- range $key, $value := include "matrix-stack.additional" . | fromYaml }}{{ $_ := set $config $key $value }}{{ end -}}
{{- $_ := set $config "public_baseurl" (printf "%s://%s/" $scheme $synapse.ingress.host) -}}
{{- $_ := set $config "max_upload_size" $synapse.media.maxUploadSize -}}
{{- with $synapse.postgres -}}
{{- if .host -}}
{{- $password := include "matrix-stack.credential" (dict "root" $ "path" "synapse.postgres.password" "credential" .password) -}}
{{- $args := dict "host" .host "port" (int .port) "user" .user "dbname" .database "password" $password "sslmode" .sslMode "cp_min" 1 "cp_max" 5 -}}
{{- $_ := set $config "database" (dict "name" "psycopg2" "args" $args) -}}
{{- end -}}
{{- end -}}
{{- with $synapse.media.s3 -}}
{{- if .bucket -}}
{{- $s3 := dict "bucket" .bucket -}}
{{- $_ := set $s3 "access_key_id" (include "matrix-stack.credential" (dict "root" $ "path" "synapse.media.s3.accessKeyId" "credential" .accessKeyId)) -}}
{{- $_ := set $s3 "secret_access_key" (include "matrix-stack.credential" (dict "root" $ "path" "synapse.media.s3.secretAccessKey" "credential" .secretAccessKey)) -}}
{{- with .endpoint }}{{ $_ := set $s3 "endpoint_url" . }}{{ end -}}
{{- with .region }}{{ $_ := set $s3 "region_name" . }}{{ end -}}
{{- with .prefix }}{{ $_ := set $s3 "prefix" . }}{{ end -}}
{{- /* Synchronous: what was answered with a media id is in the bucket, whatever happens to the process next. */ -}}
{{- $provider := dict "module" "s3_storage_provider.S3StorageProviderBackend" "store_local" true "store_remote" true "store_synchronous" true "config" $s3 -}}
{{- $_ := set $config "media_storage_providers" (list $provider) -}}
{{- end -}}
{{- end -}}
{{- with .Values.wellKnownDelegation -}}
{{- if .enabled -}}
{{- $client := include "matrix-stack.wellKnownAdditional" (dict "root" $ "kind" "client") | fromJson -}}
{{- $_ := set $config "serve_server_wellknown" true -}}
{{- $_ := set $config "extra_well_known_client_content" (merge (get $config "extra_well_known_client_content" | default dict) $client) -}}
{{- $server := dict "m.server" (printf "%s:%s" $synapse.ingress.host (ternary "443" "80" (eq $scheme "https"))) -}}
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

{{- /* What only a Synapse of its own has; comes after the other file, and so wins. */ -}}
{{- define "matrix-stack.dedicated" -}}
{{- $keys := (include "matrix-stack.keys" . | fromJson).all -}}
{{- $user := include "matrix-stack.additional" . | fromYaml -}}
{{- $resources := list "client" "federation" -}}
{{- if $user.user_consent }}{{ $resources = append $resources "consent" }}{{ end -}}
{{- $http := dict "port" 8008 "type" "http" "tls" false "x_forwarded" true "resources" (list (dict "names" $resources "compress" false)) -}}
{{- toYaml (dict
  "server_name" .Values.serverName
  "listeners" (list $http (dict "port" 9001 "type" "metrics" "bind_addresses" (list "0.0.0.0")))
  "enable_metrics" true
  "signing_key_path" "/etc/synapse/config/signing.key"
  "macaroon_secret_key" $keys.macaroon
  "form_secret" $keys.formSecret
  "registration_shared_secret" $keys.registrationSharedSecret
  "log_config" "/etc/synapse/config/log.yaml"
  "media_store_path" "/var/lib/synapse/media"
  "pid_file" "/tmp/homeserver.pid"
  "daemonize" false
) -}}
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
