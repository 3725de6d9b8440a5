{{- /*
A process of a dedicated Synapse: the main one, or a worker. Call with (dict "root" $ "name" NAME "values" VALUES), the values with its resources
and probes, and of a worker with "worker" its item of matrix-stack.workers.
*/ -}}
{{- define "matrix-stack.processContainer" -}}
{{- $root := .root -}}
{{- $synapse := $root.Values.synapse -}}
{{- $workers := include "matrix-stack.hasWorkers" $root -}}
{{- $seconds := $synapse.handoverSeconds -}}
{{- if kindIs "invalid" $seconds }}{{ $seconds = $synapse.dedicatedSeconds }}{{ end -}}
{{- $health := "http" -}}
{{- if .worker }}{{ $health = .worker.health }}{{ else if $workers }}{{ $health = 8080 }}{{ end -}}
{{- $probe := dict "httpGet" (dict "path" "/health" "port" $health) -}}
name: {{ .name }}
image: {{ include "matrix-stack.image" $root }}
imagePullPolicy: {{ $synapse.image.pullPolicy }}
command: [python, -m, multi_synapse.dedicated]
args:
  {{- if not .worker }}
  - --fence-owner=dedicated/$(POD_NAMESPACE)/$(POD_NAME)
  - --fence-revision-file=/etc/synapse/fence/revision
  - --handover-seconds={{ $seconds }}
  {{- end }}
  - --drain-seconds={{ $synapse.drainSeconds }}
  {{- if $workers }}
  - --crew=/run/crew
  {{- end }}
  {{- if .worker }}
  - --worker={{ .name }}
  {{- end }}
  - --config-path=/etc/synapse/config/homeserver.yaml
  - --config-path=/etc/synapse/config/dedicated.yaml
  {{- if .worker }}
  - --config-path=/etc/synapse/chart/worker-{{ .name }}.yaml
  {{- end }}
env:
  - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
  {{- if $root.Values.trustedCAs.configMap }}
  - {name: PGSSLROOTCERT, value: /etc/synapse/ca/{{ $root.Values.trustedCAs.key }}}
  - {name: AWS_CA_BUNDLE, value: /etc/synapse/ca/{{ $root.Values.trustedCAs.key }}}
  {{- end }}
  {{- with $synapse.extraEnv }}{{ toYaml . | nindent 2 }}{{ end }}
# Why it does not start is what it says last.
terminationMessagePolicy: FallbackToLogsOnError
ports:
  {{- if .worker }}
  - {containerPort: {{ .worker.health }}, protocol: TCP}
  {{- else if $workers }}
  - {name: metrics, containerPort: 9001, protocol: TCP}
  {{- else }}
  - {name: http, containerPort: 8008, protocol: TCP}
  - {name: metrics, containerPort: 9001, protocol: TCP}
  {{- end }}
securityContext: {{ toYaml $synapse.containersSecurityContext | nindent 2 }}
resources: {{ toYaml (.values.resources | default $synapse.resources) | nindent 2 }}
startupProbe: {{ toYaml (merge (dict) $probe (.values.startupProbe | default dict) $synapse.startupProbe) | nindent 2 }}
livenessProbe: {{ toYaml (merge (dict) $probe (.values.livenessProbe | default dict) $synapse.livenessProbe) | nindent 2 }}
readinessProbe: {{ toYaml (merge (dict) $probe (.values.readinessProbe | default dict) $synapse.readinessProbe) | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/synapse/config, readOnly: true}
  - {name: chart, mountPath: /etc/synapse/chart, readOnly: true}
  {{- if $root.Values.trustedCAs.configMap }}
  - {name: ca, mountPath: /etc/synapse/ca, readOnly: true}
  {{- end }}
  - {name: fence, mountPath: /etc/synapse/fence, readOnly: true}
  - {name: media, mountPath: /var/lib/synapse/media}
  - {name: tmp, mountPath: /tmp}
  {{- if $workers }}
  - {name: crew, mountPath: /run/crew}
  {{- end }}
  {{- include "matrix-stack.extra" (dict "list" $synapse.extraVolumeMounts "context" "runtime") | indent 2 }}
{{- end }}

{{- /* Until the main process has ended, the others need Redis, and a request that comes is to be told so. */ -}}
{{- define "matrix-stack.endsLast" -}}
{{- $steps := mul 2 (add (ceil .Values.synapse.drainSeconds) 35) -}}
preStop: {exec: {command: [sh, -c, "n=0; while [ $n -lt {{ $steps }} ] && [ ! -e /run/crew/ended ]; do n=$((n + 1)); sleep 0.5; done"]}}
{{- end }}

{{- define "matrix-stack.sidecarImage" -}}
{{ with .registry }}{{ . }}/{{ end }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end }}

{{- define "matrix-stack.haproxyContainer" -}}
name: haproxy
image: {{ include "matrix-stack.sidecarImage" .Values.haproxy.image }}
imagePullPolicy: {{ .Values.haproxy.image.pullPolicy }}
# At any address, of IPv6 too where the kernel has it: where it does not, a socket for it is an error.
command: [sh, -c, 'if [ -e /proc/net/if_inet6 ]; then export ANY_ADDRESS="[::]"; fi; exec haproxy -db -f /etc/haproxy/haproxy.cfg']
ports:
  - {name: http, containerPort: 8008, protocol: TCP}
  - {containerPort: 8405, protocol: TCP}
lifecycle: {{ include "matrix-stack.endsLast" . | nindent 2 }}
securityContext: {{ toYaml .Values.synapse.containersSecurityContext | nindent 2 }}
resources: {{ toYaml .Values.haproxy.resources | nindent 2 }}
livenessProbe: {httpGet: {path: /alive, port: 8405}, periodSeconds: 10, timeoutSeconds: 5}
readinessProbe: {httpGet: {path: /health, port: http}, periodSeconds: 5, timeoutSeconds: 5}
volumeMounts:
  - {name: chart, mountPath: /etc/haproxy, readOnly: true}
  - {name: crew, mountPath: /run/crew, readOnly: true}
{{- end }}

{{- define "matrix-stack.redisContainer" -}}
name: redis
image: {{ include "matrix-stack.sidecarImage" .Values.redis.image }}
imagePullPolicy: {{ .Values.redis.image.pullPolicy }}
# What passes through is in the database as well; nothing is kept.
args: [--bind, 127.0.0.1, --port, "6379", --save, "", --appendonly, "no", --maxmemory, {{ .Values.redis.maxMemory }}, --maxmemory-policy, allkeys-lru]
lifecycle: {{ include "matrix-stack.endsLast" . | nindent 2 }}
securityContext: {{ toYaml .Values.synapse.containersSecurityContext | nindent 2 }}
resources: {{ toYaml .Values.redis.resources | nindent 2 }}
volumeMounts:
  - {name: crew, mountPath: /run/crew, readOnly: true}
{{- end }}
