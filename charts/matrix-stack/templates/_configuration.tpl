{{- /* What puts a dedicated Synapse's configuration together. Call with (dict "root" $). */ -}}
{{- define "matrix-stack.configurationContainer" -}}
{{- $synapse := .root.Values.synapse -}}
name: configuration
image: {{ include "matrix-stack.image" .root }}
imagePullPolicy: {{ $synapse.image.pullPolicy }}
command: [python, /etc/synapse/chart/compose.py, /run/synapse/secret, /run/synapse/refs, /etc/synapse/chart, /etc/synapse/config]
terminationMessagePolicy: FallbackToLogsOnError
securityContext: {{ toYaml $synapse.containersSecurityContext | nindent 2 }}
resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 256Mi}}
volumeMounts:
  - {name: secret, mountPath: /run/synapse/secret, readOnly: true}
  - {name: refs, mountPath: /run/synapse/refs, readOnly: true}
  - {name: chart, mountPath: /etc/synapse/chart, readOnly: true}
  - {name: config, mountPath: /etc/synapse/config}
{{- end }}

{{- /* The volumes for it. Call with (dict "root" $ "chart" CONFIGMAP "secret" SECRET). */ -}}
{{- define "matrix-stack.configurationVolumes" -}}
- {name: config, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
- {name: chart, configMap: {name: {{ .chart }}}}
- {name: secret, secret: {secretName: {{ .secret }}, defaultMode: 0440}}
- name: refs
  projected:
    defaultMode: 0440
    sources:
      {{- range $index, $ref := (include "matrix-stack.secretRefs" .root | fromJson).refs }}
      - {{ ternary "configMap" "secret" (hasKey $ref "configMap") }}: {name: {{ $ref.configMap | default $ref.name }}, items: [{key: {{ $ref.key | quote }}, path: {{ $index | quote }}}]}
      {{- else }}
      []
      {{- end }}
{{- with .root.Values.trustedCAs.configMap }}
- {name: ca, configMap: {name: {{ . }}}}
{{- end }}
{{- end }}

{{- /* Volumes or mounts of the values, as ess-helm has them: `mountContext` says whether the check of the configuration has them, too. Call with (dict "list" LIST "context" "runtime" or "hook"). */ -}}
{{- define "matrix-stack.extra" -}}
{{- $context := .context -}}
{{- range .list -}}
{{- if has (.mountContext | default "both") (list "both" $context) }}
- {{ toYaml (omit . "mountContext") | nindent 2 | trim }}
{{- end -}}
{{- end -}}
{{- end }}
