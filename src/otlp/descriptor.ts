import { enums, type Field, linkMessages, type Message, messageNamed, type ScalarKind } from './schema.ts'
import { type Signal, signals } from './signal.ts'
import { bytesField, varintField } from './wire.ts'

/** One .proto file, as `google.protobuf.FileDescriptorProto` says it. */
export interface FileDescriptor {
  readonly name: string
  /** Names of the files that it builds on. */
  readonly dependencies: readonly string[]
  /** Full names of its services, methods, messages and enums. */
  readonly symbols: readonly string[]
  readonly services: readonly string[]
  readonly bytes: Buffer
}

/** What a file holds. Names have no package; `Span.Event` is nested in `Span`. */
export interface FileContents {
  readonly name: string
  readonly package: string
  readonly dependencies: readonly string[]
  readonly messages: ReadonlyMap<string, Message>
  readonly enums: Readonly<Record<string, readonly string[]>>
  readonly services: Readonly<Record<string, readonly Method[]>>
  /** The full name, after a dot, of a message or enum that a field of this file has. */
  readonly typeName: (name: string) => string
}

/** One method of a service. */
export interface Method {
  readonly name: string
  readonly request: string
  readonly response: string
  readonly requestStream?: boolean
  readonly responseStream?: boolean
}

/** FieldDescriptorProto.Type (google/protobuf/descriptor.proto). Ids are bytes. */
const fieldTypes: Record<ScalarKind | 'enum' | 'message', number> = {
  double: 1,
  int64: 3,
  uint64: 4,
  int32: 5,
  fixed64: 6,
  fixed32: 7,
  bool: 8,
  string: 9,
  message: 11,
  bytes: 12,
  traceId: 12,
  spanId: 12,
  uint32: 13,
  enum: 14,
  sfixed64: 16,
  sint32: 17,
}

/** Writes a file as a descriptor (google/protobuf/descriptor.proto, FileDescriptorProto). */
export function describeFile(contents: FileContents): FileDescriptor {
  const { name, dependencies, messages, services } = contents
  const parts = [
    bytesField(1, name),
    bytesField(2, contents.package),
    ...dependencies.map((dependency) => bytesField(3, dependency)),
    ...childrenOf('', messages.keys()).map((child) => bytesField(4, describeMessage(child, contents))),
    ...childrenOf('', Object.keys(contents.enums)).map((child) =>
      bytesField(5, describeEnum(child, contents)),
    ),
    ...Object.entries(services).map(([service, methods]) =>
      bytesField(6, describeService(service, methods, contents)),
    ),
    bytesField(12, 'proto3'),
  ]
  const inPackage = (symbol: string) => `${contents.package}.${symbol}`
  const methods = Object.entries(services).flatMap(([service, all]) =>
    all.map((method) => `${service}.${method.name}`),
  )
  const serviceNames = Object.keys(services)
  const symbols = [...messages.keys(), ...Object.keys(contents.enums), ...serviceNames, ...methods].map(
    inPackage,
  )
  return { name, dependencies, symbols, services: serviceNames.map(inPackage), bytes: Buffer.concat(parts) }
}

/** The names directly below `parent`; '' for the top. */
function childrenOf(parent: string, names: Iterable<string>): string[] {
  return [...names].filter((name) => name.slice(0, Math.max(0, name.lastIndexOf('.'))) === parent)
}

function lastName(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1)
}

function describeMessage(name: string, contents: FileContents): Buffer {
  const fields = oneofsTogether(contents.messages.get(name)?.fields ?? [])
  const optional = optionalFields[name] ?? []
  // Oneofs that the compiler makes of `optional` come after the written ones.
  const oneofs = [
    ...new Set(fields.flatMap(({ oneof }) => oneof ?? [])),
    ...optional.map((field) => `_${field}`),
  ]
  return Buffer.concat([
    bytesField(1, lastName(name)),
    ...fields.map((field) => bytesField(2, describeField(field, oneofs, contents))),
    ...childrenOf(name, contents.messages.keys()).map((child) =>
      bytesField(3, describeMessage(child, contents)),
    ),
    ...childrenOf(name, Object.keys(contents.enums)).map((child) =>
      bytesField(4, describeEnum(child, contents)),
    ),
    ...oneofs.map((oneof) => bytesField(8, bytesField(1, oneof))),
  ])
}

/** Readers in Go refuse a message whose oneof has other fields between its own. */
function oneofsTogether(fields: readonly Field[]): Field[] {
  return fields.flatMap((field) => {
    if (field.oneof === undefined) return [field]
    const members = fields.filter(({ oneof }) => oneof === field.oneof)
    return field === members[0] ? members : []
  })
}

function describeField(field: Field, oneofs: readonly string[], { typeName }: FileContents): Buffer {
  const optionalOneof = `_${field.name}`
  const isOptional = oneofs.includes(optionalOneof)
  const oneof = isOptional ? optionalOneof : field.oneof
  const parts = [
    bytesField(1, field.name),
    varintField(3, field.number),
    varintField(4, field.repeated ? 3 : 1),
    varintField(5, fieldTypes[field.kind]),
  ]
  if (field.kind === 'message') parts.push(bytesField(6, typeName(field.message.name)))
  if (field.kind === 'enum') parts.push(bytesField(6, typeName(field.enumName)))
  if (oneof !== undefined) parts.push(varintField(9, oneofs.indexOf(oneof)))
  parts.push(bytesField(10, field.jsonName))
  if (isOptional) parts.push(varintField(17, 1))
  return Buffer.concat(parts)
}

function describeEnum(name: string, contents: FileContents): Buffer {
  const values = contents.enums[name] ?? []
  return Buffer.concat([
    bytesField(1, lastName(name)),
    ...values.map((value, number) =>
      bytesField(2, Buffer.concat([bytesField(1, value), varintField(2, number)])),
    ),
  ])
}

function describeService(name: string, methods: readonly Method[], { typeName }: FileContents): Buffer {
  const described = methods.map((method) =>
    Buffer.concat([
      bytesField(1, method.name),
      bytesField(2, typeName(method.request)),
      bytesField(3, typeName(method.response)),
      ...(method.requestStream ? [varintField(5, 1)] : []),
      ...(method.responseStream ? [varintField(6, 1)] : []),
    ]),
  )
  return Buffer.concat([bytesField(1, name), ...described.map((method) => bytesField(2, method))])
}

/** Fields that are `optional` in the .proto files: 0 and absence are told apart. */
const optionalFields: Record<string, readonly string[]> = {
  HistogramDataPoint: ['sum', 'min', 'max'],
  ExponentialHistogramDataPoint: ['sum', 'min', 'max'],
}

/** Where messages and enums have another name in the .proto files than in our schema: they are nested there. */
const nestedNames: Record<string, string> = {
  SpanEvent: 'Span.Event',
  SpanLink: 'Span.Link',
  SpanKind: 'Span.SpanKind',
  StatusCode: 'Status.StatusCode',
  Buckets: 'ExponentialHistogramDataPoint.Buckets',
  ValueAtQuantile: 'SummaryDataPoint.ValueAtQuantile',
}

/** The packages of OTLP with what is in them, and the packages that each builds on. */
const packages: Record<string, { file: string; names: string; uses: readonly string[] }> = {
  'opentelemetry.proto.common.v1': {
    file: 'common',
    names: 'AnyValue ArrayValue KeyValueList KeyValue InstrumentationScope EntityRef',
    uses: [],
  },
  'opentelemetry.proto.resource.v1': {
    file: 'resource',
    names: 'Resource',
    uses: ['opentelemetry.proto.common.v1'],
  },
  'opentelemetry.proto.trace.v1': {
    file: 'trace',
    names: 'ResourceSpans ScopeSpans Span SpanEvent SpanLink Status SpanKind StatusCode',
    uses: ['opentelemetry.proto.common.v1', 'opentelemetry.proto.resource.v1'],
  },
  'opentelemetry.proto.metrics.v1': {
    file: 'metrics',
    names:
      'ResourceMetrics ScopeMetrics Metric Gauge Sum Histogram ExponentialHistogram Summary NumberDataPoint HistogramDataPoint ' +
      'ExponentialHistogramDataPoint Buckets SummaryDataPoint ValueAtQuantile Exemplar AggregationTemporality',
    uses: ['opentelemetry.proto.common.v1', 'opentelemetry.proto.resource.v1'],
  },
  'opentelemetry.proto.logs.v1': {
    file: 'logs',
    names: 'ResourceLogs ScopeLogs LogRecord SeverityNumber',
    uses: ['opentelemetry.proto.common.v1', 'opentelemetry.proto.resource.v1'],
  },
  'opentelemetry.proto.profiles.v1development': {
    file: 'profiles',
    names:
      'ResourceProfiles ScopeProfiles Profile ValueType Sample ProfilesDictionary Mapping Location Line Function Link ' +
      'KeyValueAndUnit Stack',
    uses: ['opentelemetry.proto.common.v1', 'opentelemetry.proto.resource.v1'],
  },
}

function fileName(packageName: string, file: string): string {
  return `${packageName.replaceAll('.', '/')}/${file}.proto`
}

/**
 * The .proto files of OTLP with their services for `served`, as the public ones say them, without what no request refers to: the
 * names of flag bits and the messages for files.
 */
export function describeOtlp(served: readonly Signal[]): FileDescriptor[] {
  const files: FileDescriptor[] = []
  const fullNames = new Map<string, string>()
  const typeName = (name: string) => `.${fullNames.get(name)}`
  for (const [packageName, { file, names, uses }] of Object.entries(packages)) {
    const messages = new Map<string, Message>()
    const fileEnums: Record<string, readonly string[]> = {}
    for (const name of names.split(' ')) {
      const nested = nestedNames[name] ?? name
      fullNames.set(name, `${packageName}.${nested}`)
      const values = enums[name]
      if (values === undefined) messages.set(nested, messageNamed(name))
      else fileEnums[nested] = values
    }
    const dependencies = uses.map((used) => fileName(used, packages[used]?.file ?? ''))
    files.push(
      describeFile({
        name: fileName(packageName, file),
        package: packageName,
        dependencies,
        messages,
        enums: fileEnums,
        services: {},
        typeName,
      }),
    )
  }
  for (const signal of served) files.push(describeCollector(signal, typeName))
  return files
}

/** Of each signal, how its service calls things, and the package that the request builds on. */
const collectorNames: Record<Signal, { noun: string; rejected: string; uses: string }> = {
  traces: { noun: 'Trace', rejected: 'rejected_spans', uses: 'opentelemetry.proto.trace.v1' },
  metrics: { noun: 'Metrics', rejected: 'rejected_data_points', uses: 'opentelemetry.proto.metrics.v1' },
  logs: { noun: 'Logs', rejected: 'rejected_log_records', uses: 'opentelemetry.proto.logs.v1' },
  profiles: {
    noun: 'Profiles',
    rejected: 'rejected_profiles',
    uses: 'opentelemetry.proto.profiles.v1development',
  },
}

function describeCollector(signal: Signal, typeNameOutside: (name: string) => string): FileDescriptor {
  const { noun, rejected, uses } = collectorNames[signal]
  const { service } = signals[signal]
  const dot = service.lastIndexOf('.')
  const packageName = service.slice(0, dot)
  const [request, response, partial] = [
    `Export${noun}ServiceRequest`,
    `Export${noun}ServiceResponse`,
    `Export${noun}PartialSuccess`,
  ]
  const own = linkMessages(
    {
      [response]: [`1 partial_success ${partial}`],
      [partial]: [`1 ${rejected} int64`, '2 error_message string'],
    },
    {},
  )
  const messages = new Map([[request, messageNamed(request)], ...own])
  return describeFile({
    name: fileName(packageName, `${noun.toLowerCase()}_service`),
    package: packageName,
    dependencies: [fileName(uses, packages[uses]?.file ?? '')],
    messages,
    enums: {},
    services: { [service.slice(dot + 1)]: [{ name: 'Export', request, response }] },
    typeName: (name) => (messages.has(name) ? `.${packageName}.${name}` : typeNameOutside(name)),
  })
}
