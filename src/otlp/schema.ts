import type { Signal } from './signal.ts'

/** Wire kinds of the scalar fields of OTLP. `traceId` and `spanId` are bytes of 16 and 8 bytes, or none. */
export type ScalarKind =
  | 'int32'
  | 'int64'
  | 'uint32'
  | 'uint64'
  | 'sint32'
  | 'bool'
  | 'fixed32'
  | 'fixed64'
  | 'sfixed64'
  | 'double'
  | 'string'
  | 'bytes'
  | 'traceId'
  | 'spanId'

interface FieldBase {
  readonly number: number
  /** As in the .proto file: `start_time_unix_nano`. */
  readonly name: string
  /** As in OTLP JSON: `startTimeUnixNano`. */
  readonly jsonName: string
  readonly repeated: boolean
  /** The oneof that the field belongs to; only one of its fields may be set. */
  readonly oneof: string | undefined
}

/** A field whose value is a number, text or bytes. */
export interface ScalarField extends FieldBase {
  readonly kind: ScalarKind
}

/** A field whose value is one of a list of names, as a number on the wire. */
export interface EnumField extends FieldBase {
  readonly kind: 'enum'
  readonly enumName: string
  readonly values: ReadonlyMap<string, number>
}

/** A field whose value is another message. */
export interface MessageField extends FieldBase {
  readonly kind: 'message'
  readonly message: Message
}

export type Field = ScalarField | EnumField | MessageField

/** One message of the protocol. */
export interface Message {
  readonly name: string
  /** In the order of their numbers. All numbers are below 32. */
  readonly fields: readonly Field[]
}

/**
 * Each message's fields: number, name, type, `*` when repeated, and the oneof where it has one.
 * From opentelemetry-proto 1.10 (collector, common, resource, trace, metrics, logs v1; profiles v1development).
 */
const definitions: Record<string, readonly string[]> = {
  ExportTraceServiceRequest: ['1 resource_spans ResourceSpans*'],
  ResourceSpans: ['1 resource Resource', '2 scope_spans ScopeSpans*', '3 schema_url string'],
  ScopeSpans: ['1 scope InstrumentationScope', '2 spans Span*', '3 schema_url string'],
  Span: [
    '1 trace_id traceId',
    '2 span_id spanId',
    '3 trace_state string',
    '4 parent_span_id spanId',
    '5 name string',
    '6 kind SpanKind',
    '7 start_time_unix_nano fixed64',
    '8 end_time_unix_nano fixed64',
    '9 attributes KeyValue*',
    '10 dropped_attributes_count uint32',
    '11 events SpanEvent*',
    '12 dropped_events_count uint32',
    '13 links SpanLink*',
    '14 dropped_links_count uint32',
    '15 status Status',
    '16 flags fixed32',
  ],
  SpanEvent: [
    '1 time_unix_nano fixed64',
    '2 name string',
    '3 attributes KeyValue*',
    '4 dropped_attributes_count uint32',
  ],
  SpanLink: [
    '1 trace_id traceId',
    '2 span_id spanId',
    '3 trace_state string',
    '4 attributes KeyValue*',
    '5 dropped_attributes_count uint32',
    '6 flags fixed32',
  ],
  Status: ['2 message string', '3 code StatusCode'],

  ExportMetricsServiceRequest: ['1 resource_metrics ResourceMetrics*'],
  ResourceMetrics: ['1 resource Resource', '2 scope_metrics ScopeMetrics*', '3 schema_url string'],
  ScopeMetrics: ['1 scope InstrumentationScope', '2 metrics Metric*', '3 schema_url string'],
  Metric: [
    '1 name string',
    '2 description string',
    '3 unit string',
    '5 gauge Gauge data',
    '7 sum Sum data',
    '9 histogram Histogram data',
    '10 exponential_histogram ExponentialHistogram data',
    '11 summary Summary data',
    '12 metadata KeyValue*',
  ],
  Gauge: ['1 data_points NumberDataPoint*'],
  Sum: [
    '1 data_points NumberDataPoint*',
    '2 aggregation_temporality AggregationTemporality',
    '3 is_monotonic bool',
  ],
  Histogram: ['1 data_points HistogramDataPoint*', '2 aggregation_temporality AggregationTemporality'],
  ExponentialHistogram: [
    '1 data_points ExponentialHistogramDataPoint*',
    '2 aggregation_temporality AggregationTemporality',
  ],
  Summary: ['1 data_points SummaryDataPoint*'],
  NumberDataPoint: [
    '2 start_time_unix_nano fixed64',
    '3 time_unix_nano fixed64',
    '4 as_double double value',
    '5 exemplars Exemplar*',
    '6 as_int sfixed64 value',
    '7 attributes KeyValue*',
    '8 flags uint32',
  ],
  HistogramDataPoint: [
    '2 start_time_unix_nano fixed64',
    '3 time_unix_nano fixed64',
    '4 count fixed64',
    '5 sum double',
    '6 bucket_counts fixed64*',
    '7 explicit_bounds double*',
    '8 exemplars Exemplar*',
    '9 attributes KeyValue*',
    '10 flags uint32',
    '11 min double',
    '12 max double',
  ],
  ExponentialHistogramDataPoint: [
    '1 attributes KeyValue*',
    '2 start_time_unix_nano fixed64',
    '3 time_unix_nano fixed64',
    '4 count fixed64',
    '5 sum double',
    '6 scale sint32',
    '7 zero_count fixed64',
    '8 positive Buckets',
    '9 negative Buckets',
    '10 flags uint32',
    '11 exemplars Exemplar*',
    '12 min double',
    '13 max double',
    '14 zero_threshold double',
  ],
  Buckets: ['1 offset sint32', '2 bucket_counts uint64*'],
  SummaryDataPoint: [
    '2 start_time_unix_nano fixed64',
    '3 time_unix_nano fixed64',
    '4 count fixed64',
    '5 sum double',
    '6 quantile_values ValueAtQuantile*',
    '7 attributes KeyValue*',
    '8 flags uint32',
  ],
  ValueAtQuantile: ['1 quantile double', '2 value double'],
  Exemplar: [
    '2 time_unix_nano fixed64',
    '3 as_double double value',
    '4 span_id spanId',
    '5 trace_id traceId',
    '6 as_int sfixed64 value',
    '7 filtered_attributes KeyValue*',
  ],

  ExportLogsServiceRequest: ['1 resource_logs ResourceLogs*'],
  ResourceLogs: ['1 resource Resource', '2 scope_logs ScopeLogs*', '3 schema_url string'],
  ScopeLogs: ['1 scope InstrumentationScope', '2 log_records LogRecord*', '3 schema_url string'],
  LogRecord: [
    '1 time_unix_nano fixed64',
    '2 severity_number SeverityNumber',
    '3 severity_text string',
    '5 body AnyValue',
    '6 attributes KeyValue*',
    '7 dropped_attributes_count uint32',
    '8 flags fixed32',
    '9 trace_id traceId',
    '10 span_id spanId',
    '11 observed_time_unix_nano fixed64',
    '12 event_name string',
  ],

  ExportProfilesServiceRequest: ['1 resource_profiles ResourceProfiles*', '2 dictionary ProfilesDictionary'],
  ResourceProfiles: ['1 resource Resource', '2 scope_profiles ScopeProfiles*', '3 schema_url string'],
  ScopeProfiles: ['1 scope InstrumentationScope', '2 profiles Profile*', '3 schema_url string'],
  Profile: [
    '1 sample_type ValueType',
    '2 samples Sample*',
    '3 time_unix_nano fixed64',
    '4 duration_nano uint64',
    '5 period_type ValueType',
    '6 period int64',
    '7 profile_id traceId',
    '8 dropped_attributes_count uint32',
    '9 original_payload_format string',
    '10 original_payload bytes',
    '11 attribute_indices int32*',
  ],
  ValueType: ['1 type_strindex int32', '2 unit_strindex int32'],
  Sample: [
    '1 stack_index int32',
    '2 attribute_indices int32*',
    '3 link_index int32',
    '4 values int64*',
    '5 timestamps_unix_nano fixed64*',
  ],
  ProfilesDictionary: [
    '1 mapping_table Mapping*',
    '2 location_table Location*',
    '3 function_table Function*',
    '4 link_table Link*',
    '5 string_table string*',
    '6 attribute_table KeyValueAndUnit*',
    '7 stack_table Stack*',
  ],
  Mapping: [
    '1 memory_start uint64',
    '2 memory_limit uint64',
    '3 file_offset uint64',
    '4 filename_strindex int32',
    '5 attribute_indices int32*',
  ],
  Location: ['1 mapping_index int32', '2 address uint64', '3 lines Line*', '4 attribute_indices int32*'],
  Line: ['1 function_index int32', '2 line int64', '3 column int64'],
  Function: [
    '1 name_strindex int32',
    '2 system_name_strindex int32',
    '3 filename_strindex int32',
    '4 start_line int64',
  ],
  Link: ['1 trace_id traceId', '2 span_id spanId'],
  KeyValueAndUnit: ['1 key_strindex int32', '2 value AnyValue', '3 unit_strindex int32'],
  Stack: ['1 location_indices int32*'],

  Resource: ['1 attributes KeyValue*', '2 dropped_attributes_count uint32', '3 entity_refs EntityRef*'],
  EntityRef: ['1 schema_url string', '2 type string', '3 id_keys string*', '4 description_keys string*'],
  InstrumentationScope: [
    '1 name string',
    '2 version string',
    '3 attributes KeyValue*',
    '4 dropped_attributes_count uint32',
  ],
  KeyValue: ['1 key string', '2 value AnyValue', '3 key_strindex int32'],
  AnyValue: [
    '1 string_value string value',
    '2 bool_value bool value',
    '3 int_value int64 value',
    '4 double_value double value',
    '5 array_value ArrayValue value',
    '6 kvlist_value KeyValueList value',
    '7 bytes_value bytes value',
    '8 string_value_strindex int32 value',
  ],
  ArrayValue: ['1 values AnyValue*'],
  KeyValueList: ['1 values KeyValue*'],
}

const severities = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'].flatMap((name) =>
  ['', '2', '3', '4'].map((step) => `SEVERITY_NUMBER_${name}${step}`),
)

/** The names of each enum, by their numbers from 0. */
export const enums: Record<string, readonly string[]> = {
  SpanKind: ['UNSPECIFIED', 'INTERNAL', 'SERVER', 'CLIENT', 'PRODUCER', 'CONSUMER'].map(
    (name) => `SPAN_KIND_${name}`,
  ),
  StatusCode: ['UNSET', 'OK', 'ERROR'].map((name) => `STATUS_CODE_${name}`),
  AggregationTemporality: ['UNSPECIFIED', 'DELTA', 'CUMULATIVE'].map(
    (name) => `AGGREGATION_TEMPORALITY_${name}`,
  ),
  SeverityNumber: ['SEVERITY_NUMBER_UNSPECIFIED', ...severities],
}

const scalarKinds: readonly ScalarKind[] = [
  'int32',
  'int64',
  'uint32',
  'uint64',
  'sint32',
  'bool',
  'fixed32',
  'fixed64',
  'sfixed64',
  'double',
  'string',
  'bytes',
  'traceId',
  'spanId',
]

/** Messages in the notation of this file, linked: a type is a scalar, one of `enums`, or one of the messages. */
export function linkMessages(
  definitions: Readonly<Record<string, readonly string[]>>,
  enums: Readonly<Record<string, readonly string[]>>,
): Map<string, Message> {
  const fieldsOf = new Map<string, Field[]>()
  const linked = new Map<string, Message>()
  for (const name of Object.keys(definitions)) {
    const fields: Field[] = []
    fieldsOf.set(name, fields)
    linked.set(name, { name, fields })
  }
  for (const [name, lines] of Object.entries(definitions)) {
    for (const line of lines) fieldsOf.get(name)?.push(parseField(line, linked, enums))
  }
  return linked
}

function parseField(
  line: string,
  linked: ReadonlyMap<string, Message>,
  enums: Readonly<Record<string, readonly string[]>>,
): Field {
  const [number, name, written, oneof] = line.split(' ')
  if (number === undefined || name === undefined || written === undefined) {
    throw new Error(`the schema has a line that is no field: ${line}`)
  }
  const repeated = written.endsWith('*')
  const type = repeated ? written.slice(0, -1) : written
  const jsonName = name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())
  const base = { number: Number(number), name, jsonName, repeated, oneof }
  // Not the text that was cut out of the line: a comparison with a name is quick only for the very string of the name.
  const scalar = scalarKinds.find((kind) => kind === type)
  if (scalar !== undefined) return { ...base, kind: scalar }
  const names = enums[type]
  if (names !== undefined) {
    const values = new Map(names.map((value, index) => [value, index]))
    return { ...base, kind: 'enum', enumName: type, values }
  }
  const message = linked.get(type)
  if (message === undefined) throw new Error(`the schema has a field of unknown type: ${line}`)
  return { ...base, kind: 'message', message }
}

/** Every message of the protocol by its name (nested ones without their parent: `SpanEvent` is `Span.Event`). */
export const messages: ReadonlyMap<string, Message> = linkMessages(definitions, enums)

/** The message called `name`; a name that is not in the schema is a bug. */
export function messageNamed(name: string): Message {
  const message = messages.get(name)
  if (message === undefined) throw new Error(`the schema has no message ${name}`)
  return message
}

/** The message that a client sends for each signal: `Export…ServiceRequest`. */
export const requestMessages: Record<Signal, Message> = {
  traces: messageNamed('ExportTraceServiceRequest'),
  metrics: messageNamed('ExportMetricsServiceRequest'),
  logs: messageNamed('ExportLogsServiceRequest'),
  profiles: messageNamed('ExportProfilesServiceRequest'),
}

/** What one item of a signal is, for counting. Data points are of several messages. */
export const itemMessages: ReadonlySet<Message> = new Set(
  [
    'Span',
    'NumberDataPoint',
    'HistogramDataPoint',
    'ExponentialHistogramDataPoint',
    'SummaryDataPoint',
    'LogRecord',
    'Profile',
  ].map(messageNamed),
)

/**
 * Messages of v1development, whose fields still change between releases, and with them those of the messages in them.
 */
export const unstableMessages: ReadonlySet<Message> = new Set(
  ['Profile', 'ProfilesDictionary'].map(messageNamed),
)

/** Deepest nesting below the request itself that the decoders of C++, Java and Python take. */
export const messageDepthMax = 100

/** How a field's single values stand on the wire: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes. */
export function wireTypeOf(field: Field): 0 | 1 | 2 | 5 {
  switch (field.kind) {
    case 'int32':
    case 'int64':
    case 'uint32':
    case 'uint64':
    case 'sint32':
    case 'bool':
    case 'enum':
      return 0
    case 'fixed64':
    case 'sfixed64':
    case 'double':
      return 1
    case 'string':
    case 'bytes':
    case 'traceId':
    case 'spanId':
    case 'message':
      return 2
    case 'fixed32':
      return 5
  }
}
