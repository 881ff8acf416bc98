import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import type { ClientSignal } from './stored.ts'

const traceId = '5B8EFFF798038103D269B633813FC60C'
const spanId = 'EEE19B7EC3C1B174'
const startTimeUnixNano = '1800000000123456789'
const timeUnixNano = '1800000001000000001'
const schemaUrl = 'https://opentelemetry.io/schemas/1.40.0'

const attributes = [
  { key: 'text', value: { stringValue: 'Grüße, 世界 😀' } },
  { key: 'empty text', value: { stringValue: '' } },
  { key: 'smallest', value: { intValue: '-9223372036854775808' } },
  { key: 'largest', value: { intValue: '9223372036854775807' } },
  { key: 'zero', value: { intValue: '0' } },
  { key: 'fraction', value: { doubleValue: -1.5e300 } },
  { key: 'yes', value: { boolValue: true } },
  { key: 'no', value: { boolValue: false } },
  { key: 'bytes', value: { bytesValue: 'AH+A/w==' } },
  { key: 'nothing', value: {} },
  {
    key: 'list',
    value: { arrayValue: { values: [{ stringValue: 'ü' }, { intValue: '1' }, {}, { arrayValue: {} }] } },
  },
  {
    key: 'map',
    value: {
      kvlistValue: {
        values: [
          {
            key: 'inner',
            value: { kvlistValue: { values: [{ key: 'deep', value: { doubleValue: 0.1 } }] } },
          },
        ],
      },
    },
  },
]

/** What every data point here has. */
const point = { attributes, startTimeUnixNano, timeUnixNano, flags: 1 }
const exemplars = [
  {
    filteredAttributes: attributes,
    timeUnixNano,
    traceId,
    spanId,
    asInt: '9223372036854775807',
  },
  { timeUnixNano, asDouble: 0.5 },
]
const exponential = {
  ...point,
  count: '18446744073709551615',
  sum: -1.5,
  scale: -3,
  zeroCount: '7',
  zeroThreshold: 0.001,
  positive: { offset: -2147483648, bucketCounts: ['1', '0', '18446744073709551615'] },
  negative: { offset: 2147483647, bucketCounts: ['300'] },
  min: -2,
  max: 2,
  exemplars,
}

const scope = { name: 'everything', version: '1', attributes, droppedAttributesCount: 1 }

/** One request of each signal in which every field of OTLP that a Collector carries is set, as protobuf. */
export function everything(service: string): Record<ClientSignal, Buffer> {
  const resource = {
    attributes: [{ key: 'service.name', value: { stringValue: service } }, ...attributes],
    droppedAttributesCount: 2,
  }
  const of = (signal: ClientSignal, body: object) =>
    protobufFromJson(signal, Buffer.from(JSON.stringify(body)))
  return {
    traces: of('traces', {
      resourceSpans: [{ resource, scopeSpans: [{ scope, spans: spans(), schemaUrl }], schemaUrl }],
    }),
    metrics: of('metrics', {
      resourceMetrics: [{ resource, scopeMetrics: [{ scope, metrics: metrics(), schemaUrl }], schemaUrl }],
    }),
    logs: of('logs', {
      resourceLogs: [{ resource, scopeLogs: [{ scope, logRecords: logRecords(), schemaUrl }], schemaUrl }],
    }),
  }
}

function spans(): object[] {
  return [
    {
      traceId,
      spanId,
      parentSpanId: '0000000000000001',
      traceState: 'vendor=größe',
      flags: 769,
      name: 'everything 😀',
      kind: 5,
      startTimeUnixNano,
      endTimeUnixNano: timeUnixNano,
      attributes,
      droppedAttributesCount: 3,
      events: [{ timeUnixNano, name: 'event', attributes, droppedAttributesCount: 4 }],
      droppedEventsCount: 5,
      links: [{ traceId, spanId, traceState: 'a=b', attributes, droppedAttributesCount: 6, flags: 257 }],
      droppedLinksCount: 7,
      status: { message: 'failed: größer', code: 2 },
    },
    {
      traceId,
      spanId,
      name: '',
      startTimeUnixNano: '0',
      endTimeUnixNano: '18446744073709551615',
      status: {},
    },
  ]
}

function metrics(): object[] {
  const named = (name: string) => ({
    name,
    description: `the ${name}`,
    unit: 'By',
    metadata: [{ key: 'about', value: { stringValue: name } }],
  })
  return [
    { ...named('gauge'), gauge: { dataPoints: [{ ...point, asInt: '-9223372036854775808', exemplars }] } },
    {
      ...named('sum'),
      sum: {
        aggregationTemporality: 1,
        isMonotonic: true,
        dataPoints: [{ ...point, asDouble: 1e-300 }],
      },
    },
    {
      ...named('histogram'),
      histogram: {
        aggregationTemporality: 2,
        dataPoints: [
          {
            ...point,
            count: '6',
            sum: 1.5,
            bucketCounts: ['1', '2', '3'],
            explicitBounds: [-0.5, 1e16],
            min: -1,
            max: 1e9,
            exemplars,
          },
          { ...point, count: '0' },
        ],
      },
    },
    {
      ...named('exponential histogram'),
      exponentialHistogram: { aggregationTemporality: 1, dataPoints: [exponential] },
    },
    {
      ...named('summary'),
      summary: {
        dataPoints: [{ ...point, count: '2', sum: 3, quantileValues: [{ quantile: 0.99, value: 2.5 }] }],
      },
    },
  ]
}

function logRecords(): object[] {
  return [
    {
      timeUnixNano,
      observedTimeUnixNano: startTimeUnixNano,
      severityNumber: 24,
      severityText: 'FATAL4 – größer',
      body: { kvlistValue: { values: attributes } },
      attributes,
      droppedAttributesCount: 8,
      flags: 1,
      traceId,
      spanId,
      eventName: 'everything.event',
    },
    { timeUnixNano, body: { bytesValue: 'AH+A/w==' } },
    { timeUnixNano, body: { stringValue: 'plain 😀' } },
  ]
}
