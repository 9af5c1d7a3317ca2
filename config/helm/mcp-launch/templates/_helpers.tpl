{{- define "mcp-launch.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "mcp-launch.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mcp-launch.labels" -}}
{{ include "mcp-launch.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* The program, from the image or from the volume. */ -}}
{{- define "mcp-launch.program" -}}
{{- if .Values.launcher.image -}}
/opt/mcp-launch/mcp-launch
{{- else -}}
mcp-launch
{{- end -}}
{{- end -}}

{{- define "mcp-launch.probe" -}}
exec:
  command: [{{ include "mcp-launch.program" .root }}, health, {{ .of }}]
{{ toYaml .timing }}
{{- end -}}
