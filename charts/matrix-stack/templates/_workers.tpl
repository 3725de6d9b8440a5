{{- /*
A dedicated Synapse with workers is one pod: the main process, its workers, Redis and HAProxy, which reach each other by the pod's loopback
address alone. So they are there together or not at all, and nobody else reaches what is between them (docs/kubernetes-design.md).
*/ -}}

{{- /* The kinds that are enabled, with their part of files/workers.yaml and of the values: a map. */ -}}
{{- define "matrix-stack.workerKinds" -}}
{{- $table := .Files.Get "files/workers.yaml" | fromYaml -}}
{{- $kinds := dict -}}
{{- range $kind, $values := .Values.synapse.workers -}}
{{- $replicas := dig "replicas" 1 ($values | default dict) | int -}}
{{- if and (dig "enabled" false ($values | default dict)) (gt $replicas 0) -}}
{{- $_ := set $kinds $kind (dict "table" (get $table $kind) "values" $values "replicas" $replicas) -}}
{{- end -}}
{{- end -}}
{{- toJson $kinds -}}
{{- end }}

{{- /* Every worker, in the order of their names: a list of {name, kind, client, between, health}, the last three ports. */ -}}
{{- define "matrix-stack.workers" -}}
{{- $workers := list -}}
{{- range $kind, $facts := include "matrix-stack.workerKinds" . | fromJson -}}
{{- range $index := until (int $facts.replicas) -}}
{{- $number := len $workers -}}
{{- $workers = append $workers (dict "name" (printf "%s-%d" $kind $index) "kind" $kind "client" (add 8100 $number) "between" (add 8200 $number) "health" (add 8300 $number)) -}}
{{- end -}}
{{- end -}}
{{- dict "workers" $workers | toJson -}}
{{- end }}

{{- define "matrix-stack.hasWorkers" -}}
{{- if include "matrix-stack.workerKinds" . | fromJson }}true{{ end -}}
{{- end }}

{{- define "matrix-stack.betweenListener" -}}
{{- dict "port" . "type" "http" "tls" false "bind_addresses" (list "127.0.0.1") "resources" (list (dict "names" (list "replication") "compress" false)) | toJson -}}
{{- end }}

{{- /* What is in dedicated.yaml besides, for all processes, where there are workers. */ -}}
{{- define "matrix-stack.workerOptions" -}}
{{- $main := dict "port" 8081 "type" "http" "tls" false "bind_addresses" (list "127.0.0.1") "x_forwarded" true "resources" (list (dict "names" (list "client" "federation") "compress" false)) -}}
{{- $health := dict "port" 8080 "type" "http" "tls" false "resources" (list (dict "names" (list "health") "compress" false)) -}}
{{- $metrics := dict "port" 9001 "type" "metrics" "bind_addresses" (list "0.0.0.0") -}}
{{- $between := include "matrix-stack.betweenListener" 9093 | fromJson -}}
{{- $instances := dict "main" (dict "host" "127.0.0.1" "port" 9093) -}}
{{- $names := dict -}}
{{- range (include "matrix-stack.workers" . | fromJson).workers -}}
{{- $_ := set $instances .name (dict "host" "127.0.0.1" "port" .between) -}}
{{- $_ := set $names .kind (append (get $names .kind | default list) .name) -}}
{{- end -}}
{{- $options := dict "listeners" (list $main $between $health $metrics) "instance_map" $instances "redis" (dict "enabled" true "host" "127.0.0.1" "port" 6379) -}}
{{- $writers := dict -}}
{{- range $kind, $facts := include "matrix-stack.workerKinds" . | fromJson -}}
{{- $own := get $names $kind -}}
{{- with $facts.table.duty }}{{ $_ := set $options . (ternary $own (first $own) (hasSuffix "_instances" .)) }}{{ end -}}
{{- range $stream, $beside := $facts.table.streams }}{{ $_ := set $writers $stream (concat $beside $own) }}{{ end -}}
{{- end -}}
{{- with $writers }}{{ $_ := set $options "stream_writers" . }}{{ end -}}
{{- toJson $options -}}
{{- end }}

{{- /* Files of the chart's ConfigMap where there are workers: a part of homeserver.yaml for each, and what HAProxy reads. */ -}}
{{- define "matrix-stack.workerFiles" -}}
{{- $files := dict -}}
{{- $kinds := include "matrix-stack.workerKinds" . | fromJson -}}
{{- range (include "matrix-stack.workers" . | fromJson).workers -}}
{{- $table := (get $kinds .kind).table -}}
{{- $http := dict "port" .client "type" "http" "tls" false "bind_addresses" (list "127.0.0.1") "x_forwarded" true "resources" (list (dict "names" (ternary (list "client" "federation" "media") (list "client" "federation") (eq $table.media true)) "compress" false)) -}}
{{- $health := dict "port" .health "type" "http" "tls" false "resources" (list (dict "names" (list "health" "metrics") "compress" false)) -}}
{{- $own := dict "worker_app" "synapse.app.generic_worker" "worker_name" .name "worker_listeners" (list $http (include "matrix-stack.betweenListener" .between | fromJson) $health) -}}
{{- if not $table.media }}{{ $_ := set $own "enable_media_repo" false }}{{ end -}}
{{- $_ := set $files (printf "worker-%s.yaml" .name) (toYaml $own) -}}
{{- end -}}
{{- $paths := list -}}
{{- $getPaths := list -}}
{{- range $kind, $facts := $kinds -}}
{{- range $facts.table.roomPaths }}{{ $paths = append $paths (printf "%s %s-by-room" . $kind) }}{{ end -}}
{{- range $facts.table.paths }}{{ $paths = append $paths (printf "%s %s" . $kind) }}{{ end -}}
{{- range $facts.table.getPaths }}{{ $getPaths = append $getPaths (printf "%s %s" . $kind) }}{{ end -}}
{{- end -}}
{{- $_ := set $files "paths.map" (printf "%s\n" (join "\n" $paths)) -}}
{{- $_ := set $files "get.map" (printf "%s\n" (join "\n" $getPaths)) -}}
{{- $_ := set $files "haproxy.cfg" (include "matrix-stack.haproxy" .) -}}
{{- toYaml $files -}}
{{- end }}

{{- define "matrix-stack.haproxy" -}}
{{- $workers := (include "matrix-stack.workers" . | fromJson).workers -}}
{{- $kinds := include "matrix-stack.workerKinds" . | fromJson -}}
global
  log stdout format raw local0 notice
  # Of what the machine allows, which may be so much that the tables for it take all memory.
  fd-hard-limit 40000

defaults
  mode http
  log global
  # A connection for each request: one that a process is just closing would take a request with it.
  option http-server-close
  option forwardfor if-none
  # What no process has taken may be sent to another; nothing else.
  retries 3
  option redispatch 1
  timeout connect 3s
  timeout queue 30s
  timeout http-request 30s
  timeout client 15m
  timeout server 15m
  hash-type consistent
  option httpchk GET /health
  http-check expect status 200
  timeout check 5s
  # A process that ends refuses, and is out at once; one that is busy has its time.
  default-server check inter 500ms fastinter 300ms downinter 300ms fall 1 rise 1
  {{- if eq (include "matrix-stack.mode" .) "standalone" }}
  http-error status 503 content-type application/json hdr Retry-After 2 hdr Access-Control-Allow-Origin * string '{"errcode":"M_UNKNOWN","error":"This homeserver is starting"}'
  {{- else }}
  # Nobody acted on it: the gateway holds the request, and sends it again.
  http-error status 503 content-type application/json hdr X-Synapse-Shards misdirected string '{"errcode":"M_UNKNOWN","error":"This homeserver is not here"}'
  {{- end }}

frontend health
  bind "${ANY_ADDRESS}:8405" v4v6
  monitor-uri /alive
  http-request use-service prometheus-exporter if { path /metrics }
  http-request return status 404

frontend http
  bind "${ANY_ADDRESS}:8008" v4v6
  {{- if ne (include "matrix-stack.mode" .) "standalone" }}
  http-after-response set-status 421 if { status 503 } { res.hdr(x-synapse-shards) -m str misdirected }
  {{- end }}
  # Its processes are a homeserver once all are there that write what no other can.
  {{- range $kind, $facts := $kinds }}
  {{- if and $facts.table.streams $facts.table.alone }}
  http-request return status 503 content-type text/plain string "{{ $kind }} is missing" if { path /health } { nbsrv({{ $kind }}) lt {{ $facts.replicas }} }
  {{- end }}
  {{- end }}
  # As Synapse assumes where it is missing, and says at each request.
  http-request set-header X-Forwarded-Proto https if !{ req.hdr(x-forwarded-proto) -m found }
  http-request set-var(txn.to) path,map_reg(/etc/haproxy/paths.map,main)
  http-request set-var(txn.to) path,map_reg(/etc/haproxy/get.map,main) if { method GET HEAD } { var(txn.to) -m str main }
  {{- if hasKey $kinds "initial-synchrotron" }}
  http-request set-var(txn.to) str(initial-synchrotron) if { path_reg ^/_matrix/client/(r0|v3)/sync$ } !{ urlp(since) -m found }
  http-request set-var(txn.to) str(initial-synchrotron) if { path_reg ^/_matrix/client/(r0|v3)/sync$ } { urlp(full_state) -m str true }
  http-request set-var(txn.to) str(initial-synchrotron) if { path_reg ^/_matrix/client/(api/v1|r0|v3)/events$ } !{ urlp(from) -m found }
  {{- end }}
  use_backend %[var(txn.to)]

backend main
  server main 127.0.0.1:8081 check port 8080
{{- range $kind, $facts := $kinds }}
{{- $of := list }}
{{- if or $facts.table.paths $facts.table.streams }}{{ $of = append $of "" }}{{ end }}
{{- if $facts.table.roomPaths }}{{ $of = append $of "-by-room" }}{{ end }}
{{- range $suffix := $of }}

backend {{ $kind }}{{ $suffix }}
  {{- if $suffix }}
  balance uri depth 5
  {{- else }}
  balance {{ $facts.table.balance | default "roundrobin" }}
  {{- end }}
  {{- range $workers }}
  {{- if eq .kind $kind }}
  server {{ .name }} 127.0.0.1:{{ .client }} check port {{ .health }}
  {{- end }}
  {{- end }}
  {{- if not $facts.table.alone }}
  server main 127.0.0.1:8081 check port 8080 backup
  {{- end }}
{{- end }}
{{- end }}
{{ end }}
