import protobuf from 'protobufjs'

/** The three signals that OTLP/HTTP exports here. */
export type StressSignal = 'traces' | 'metrics' | 'logs'
export const stressSignals: readonly [StressSignal, ...StressSignal[]] = ['traces', 'metrics', 'logs']

/**
 * The messages of OTLP 1.x that the harness writes and reads, on protobufjs: a codec that shares no line with the
 * program's own. Each field as `number name type`, `*` when repeated, `?` when its absence can be told from zero,
 * and the oneof where it has one.
 */
const messages: Record<string, readonly string[]> = {
  AnyValue: [
    '1 stringValue string value',
    '2 boolValue bool value',
    '3 intValue int64 value',
    '4 doubleValue double value',
    '5 arrayValue ArrayValue value',
    '6 kvlistValue KeyValueList value',
    '7 bytesValue bytes value',
  ],
  ArrayValue: ['1 values AnyValue*'],
  KeyValueList: ['1 values KeyValue*'],
  KeyValue: ['1 key string', '2 value AnyValue'],
  InstrumentationScope: [
    '1 name string',
    '2 version string',
    '3 attributes KeyValue*',
    '4 droppedAttributesCount uint32',
  ],
  Resource: ['1 attributes KeyValue*', '2 droppedAttributesCount uint32'],

  ExportTraceServiceRequest: ['1 resourceSpans ResourceSpans*'],
  ResourceSpans: ['1 resource Resource', '2 scopeSpans ScopeSpans*', '3 schemaUrl string'],
  ScopeSpans: ['1 scope InstrumentationScope', '2 spans Span*', '3 schemaUrl string'],
  Span: [
    '1 traceId bytes',
    '2 spanId bytes',
    '3 traceState string',
    '4 parentSpanId bytes',
    '5 name string',
    '6 kind int32',
    '7 startTimeUnixNano fixed64',
    '8 endTimeUnixNano fixed64',
    '9 attributes KeyValue*',
    '10 droppedAttributesCount uint32',
    '11 events Event*',
    '12 droppedEventsCount uint32',
    '13 links Link*',
    '14 droppedLinksCount uint32',
    '15 status SpanStatus',
    '16 flags fixed32',
  ],
  Event: [
    '1 timeUnixNano fixed64',
    '2 name string',
    '3 attributes KeyValue*',
    '4 droppedAttributesCount uint32',
  ],
  Link: [
    '1 traceId bytes',
    '2 spanId bytes',
    '3 traceState string',
    '4 attributes KeyValue*',
    '5 droppedAttributesCount uint32',
    '6 flags fixed32',
  ],
  SpanStatus: ['2 message string', '3 code int32'],

  ExportMetricsServiceRequest: ['1 resourceMetrics ResourceMetrics*'],
  ResourceMetrics: ['1 resource Resource', '2 scopeMetrics ScopeMetrics*', '3 schemaUrl string'],
  ScopeMetrics: ['1 scope InstrumentationScope', '2 metrics Metric*', '3 schemaUrl string'],
  Metric: [
    '1 name string',
    '2 description string',
    '3 unit string',
    '5 gauge Gauge data',
    '7 sum Sum data',
    '9 histogram Histogram data',
    '10 exponentialHistogram ExponentialHistogram data',
    '11 summary Summary data',
    '12 metadata KeyValue*',
  ],
  Gauge: ['1 dataPoints NumberDataPoint*'],
  Sum: ['1 dataPoints NumberDataPoint*', '2 aggregationTemporality int32', '3 isMonotonic bool'],
  Histogram: ['1 dataPoints HistogramDataPoint*', '2 aggregationTemporality int32'],
  ExponentialHistogram: ['1 dataPoints ExponentialHistogramDataPoint*', '2 aggregationTemporality int32'],
  Summary: ['1 dataPoints SummaryDataPoint*'],
  NumberDataPoint: [
    '2 startTimeUnixNano fixed64',
    '3 timeUnixNano fixed64',
    '4 asDouble double value',
    '5 exemplars Exemplar*',
    '6 asInt sfixed64 value',
    '7 attributes KeyValue*',
    '8 flags uint32',
  ],
  HistogramDataPoint: [
    '2 startTimeUnixNano fixed64',
    '3 timeUnixNano fixed64',
    '4 count fixed64',
    '5 sum double?',
    '6 bucketCounts fixed64*',
    '7 explicitBounds double*',
    '8 exemplars Exemplar*',
    '9 attributes KeyValue*',
    '10 flags uint32',
    '11 min double?',
    '12 max double?',
  ],
  ExponentialHistogramDataPoint: [
    '1 attributes KeyValue*',
    '2 startTimeUnixNano fixed64',
    '3 timeUnixNano fixed64',
    '4 count fixed64',
    '5 sum double?',
    '6 scale sint32',
    '7 zeroCount fixed64',
    '8 positive Buckets',
    '9 negative Buckets',
    '10 flags uint32',
    '11 exemplars Exemplar*',
    '12 min double?',
    '13 max double?',
    '14 zeroThreshold double',
  ],
  Buckets: ['1 offset sint32', '2 bucketCounts uint64*'],
  SummaryDataPoint: [
    '2 startTimeUnixNano fixed64',
    '3 timeUnixNano fixed64',
    '4 count fixed64',
    '5 sum double',
    '6 quantileValues ValueAtQuantile*',
    '7 attributes KeyValue*',
    '8 flags uint32',
  ],
  ValueAtQuantile: ['1 quantile double', '2 value double'],
  Exemplar: [
    '2 timeUnixNano fixed64',
    '3 asDouble double value',
    '4 spanId bytes',
    '5 traceId bytes',
    '6 asInt sfixed64 value',
    '7 filteredAttributes KeyValue*',
  ],

  ExportLogsServiceRequest: ['1 resourceLogs ResourceLogs*'],
  ResourceLogs: ['1 resource Resource', '2 scopeLogs ScopeLogs*', '3 schemaUrl string'],
  ScopeLogs: ['1 scope InstrumentationScope', '2 logRecords LogRecord*', '3 schemaUrl string'],
  LogRecord: [
    '1 timeUnixNano fixed64',
    '2 severityNumber int32',
    '3 severityText string',
    '5 body AnyValue',
    '6 attributes KeyValue*',
    '7 droppedAttributesCount uint32',
    '8 flags fixed32',
    '9 traceId bytes',
    '10 spanId bytes',
    '11 observedTimeUnixNano fixed64',
    '12 eventName string',
  ],

  ExportTraceServiceResponse: ['1 partialSuccess TracePartialSuccess'],
  TracePartialSuccess: ['1 rejectedSpans int64', '2 errorMessage string'],
  ExportMetricsServiceResponse: ['1 partialSuccess MetricsPartialSuccess'],
  MetricsPartialSuccess: ['1 rejectedDataPoints int64', '2 errorMessage string'],
  ExportLogsServiceResponse: ['1 partialSuccess LogsPartialSuccess'],
  LogsPartialSuccess: ['1 rejectedLogRecords int64', '2 errorMessage string'],
  Status: ['1 code int32', '2 message string'],
}

const root = protobuf.Root.fromJSON({ nested: Object.fromEntries(Object.entries(messages).map(described)) })

const names = {
  traces: { request: 'ExportTraceServiceRequest', response: 'ExportTraceServiceResponse' },
  metrics: { request: 'ExportMetricsServiceRequest', response: 'ExportMetricsServiceResponse' },
  logs: { request: 'ExportLogsServiceRequest', response: 'ExportLogsServiceResponse' },
} as const

const requestTypes = types('request')
const responseTypes = types('response')
const statusType = root.lookupType('Status')

/** An export request in the shape of OTLP JSON, but with ids and bytes as buffers. 64-bit numbers may be text. */
export type Model = Readonly<Record<string, unknown>>

export function encodeRequest(signal: StressSignal, model: Model): Buffer {
  const type = requestTypes[signal]
  return Buffer.from(type.encode(type.fromObject(model)).finish())
}

/**
 * A request's content as one text that is equal for equal content, in whatever order and packing its fields came and
 * whether or not a zero was written out.
 *
 * @throws Error when the bytes are no such request.
 */
export function canonicalRequest(signal: StressSignal, protobufBytes: Uint8Array): string {
  const type = requestTypes[signal]
  return JSON.stringify(
    type.toObject(type.decode(protobufBytes), { longs: String, bytes: String, defaults: true, json: true }),
  )
}

/** Spans, data points or log records of a request. */
export function countItems(signal: StressSignal, protobufBytes: Uint8Array): number {
  const type = requestTypes[signal]
  const request = type.toObject(type.decode(protobufBytes), { arrays: true })
  const lists = (holder: Record<string, unknown>, name: string) =>
    (holder[name] ?? []) as Record<string, unknown>[]
  if (signal === 'traces') {
    return sum(lists(request, 'resourceSpans'), (resource) =>
      sum(lists(resource, 'scopeSpans'), (scope) => lists(scope, 'spans').length),
    )
  }
  if (signal === 'logs') {
    return sum(lists(request, 'resourceLogs'), (resource) =>
      sum(lists(resource, 'scopeLogs'), (scope) => lists(scope, 'logRecords').length),
    )
  }
  return sum(lists(request, 'resourceMetrics'), (resource) =>
    sum(lists(resource, 'scopeMetrics'), (scope) =>
      sum(lists(scope, 'metrics'), (metric) => {
        const data = Object.values(metric).find(
          (field) => typeof field === 'object' && field !== null && 'dataPoints' in field,
        )
        return data === undefined ? 0 : lists(data as Record<string, unknown>, 'dataPoints').length
      }),
    ),
  )
}

/** What a 202 says: how many items were not taken, under the right name for the signal; undefined without a word. */
export function rejectedItems(
  signal: StressSignal,
  format: 'protobuf' | 'json',
  body: Buffer,
): number | undefined {
  const response =
    format === 'json'
      ? (JSON.parse(body.toString()) as Record<string, unknown>)
      : responseTypes[signal].toObject(responseTypes[signal].decode(body), { longs: String })
  const partial = response.partialSuccess as Record<string, unknown> | undefined
  const field = { traces: 'rejectedSpans', metrics: 'rejectedDataPoints', logs: 'rejectedLogRecords' }[signal]
  return partial?.[field] === undefined ? undefined : Number(partial[field])
}

/** The message of an error's `google.rpc.Status`; undefined when the body is none. */
export function statusMessage(format: 'protobuf' | 'json', body: Buffer): string | undefined {
  try {
    const status =
      format === 'json'
        ? (JSON.parse(body.toString()) as Record<string, unknown>)
        : statusType.toObject(statusType.decode(body))
    return typeof status.message === 'string' ? status.message : undefined
  } catch {
    // Not a Status: the caller's check fails with what it wanted.
    return undefined
  }
}

function sum<T>(list: readonly T[], amount: (entry: T) => number): number {
  return list.reduce((total, entry) => total + amount(entry), 0)
}

function types(which: 'request' | 'response'): Record<StressSignal, protobuf.Type> {
  return {
    traces: root.lookupType(names.traces[which]),
    metrics: root.lookupType(names.metrics[which]),
    logs: root.lookupType(names.logs[which]),
  }
}

function described([message, lines]: [string, readonly string[]]): [string, protobuf.IType] {
  const fields: Record<string, protobuf.IField> = {}
  const oneofs: Record<string, protobuf.IOneOf> = {}
  for (const line of lines) {
    const [id, name = '', written = '', oneof] = line.split(' ')
    const type = written.replace(/[*?]$/, '')
    const optional = written.endsWith('?')
    fields[name] = {
      id: Number(id),
      type,
      ...(written.endsWith('*') ? { rule: 'repeated' } : {}),
      ...(optional ? { options: { proto3_optional: true } } : {}),
    }
    const group = optional ? `_${name}` : oneof
    if (group === undefined) continue
    oneofs[group] ??= { oneof: [] }
    oneofs[group].oneof.push(name)
  }
  return [message, { fields, ...(Object.keys(oneofs).length === 0 ? {} : { oneofs }) }]
}
