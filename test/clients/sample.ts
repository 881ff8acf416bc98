import { expect } from 'vitest'
import type { Message } from './stored.ts'

/**
 * What every SDK is let send, and what must be found of it in the store, as protobuf JSON: a parent and a child span,
 * a metric of every kind, and two log records, with every kind of value.
 */
export interface ExpectedSample {
  traces: Message[]
  metrics: Message[]
  logs: Message[]
}

/** Ids in hex. */
export interface SampleIds {
  traceId: string
  parentId: string
  childId: string
}

/** In what the SDKs differ. */
export interface SampleFacts {
  service: string
  ids: SampleIds
  /** The whole numbers that only this SDK can send: the others are the same for all. */
  wholeNumbers: readonly Message[]
  /** The list of numbers. */
  numbers: Message
  spanFlags: number
  logFlags: number
  /** What is in the points of the exponential histogram besides count, sum, bounds and zero count. */
  buckets: Message
  /** The exemplars of the counter, with whatever belongs to them. */
  counter: Message
  /** Whether gauges have a start time. */
  gaugeStarts: boolean
}

/** Any time of this century and the next two, in nanoseconds. */
export const someTime = expect.stringMatching(/^\d{19}$/) as unknown

const second = 1_800_000_000
const at = (afterSeconds: number, fraction: string) => `${second + afterSeconds}${fraction}`
const base64 = (hex: string) => Buffer.from(hex, 'hex').toString('base64')
const text = (stringValue: string) => ({ stringValue })

/** What must be found. */
export function expectedSample(facts: SampleFacts): ExpectedSample {
  const resource = { attributes: [{ key: 'service.name', value: text(facts.service) }] }
  const scope = { name: 'sample', version: '1.2.3' }
  return {
    traces: [{ resource, scopeSpans: [{ scope, spans: spans(facts) }] }],
    metrics: [{ resource, scopeMetrics: [{ scope, metrics: metrics(facts) }] }],
    logs: [{ resource, scopeLogs: [{ scope, logRecords: logRecords(facts) }] }],
  }
}

function attributes({ wholeNumbers, numbers }: SampleFacts): Message[] {
  const map = [
    { key: 'inner', value: { kvlistValue: { values: [{ key: 'deep', value: text('value') }] } } },
    { key: 'count', value: { intValue: '3' } },
  ]
  return [
    { key: 'text', value: text('Grüße, 世界 😀') },
    { key: 'empty text', value: text('') },
    ...wholeNumbers,
    { key: 'fraction', value: { doubleValue: 0.1 } },
    { key: 'yes', value: { boolValue: true } },
    { key: 'no', value: { boolValue: false } },
    { key: 'bytes', value: { bytesValue: 'AH+A/w==' } },
    { key: 'texts', value: { arrayValue: { values: [text('a'), text(''), text('ü')] } } },
    { key: 'numbers', value: numbers },
    { key: 'map', value: { kvlistValue: { values: map } } },
  ]
}

function spans(facts: SampleFacts): Message[] {
  const { ids, spanFlags: flags } = facts
  const traceId = base64(ids.traceId)
  const parentId = base64(ids.parentId)
  return [
    {
      traceId,
      spanId: base64(ids.childId),
      parentSpanId: parentId,
      name: 'child',
      kind: 'SPAN_KIND_CLIENT',
      startTimeUnixNano: at(0, '200000001'),
      endTimeUnixNano: at(2, '000000001'),
      events: [
        {
          timeUnixNano: at(0, '300000000'),
          name: 'exception',
          attributes: [{ key: 'exception.message', value: text('größer als 2^53') }],
        },
        { timeUnixNano: at(1, '000000000'), name: 'nothing more' },
      ],
      links: [{ traceId, spanId: parentId, attributes: [{ key: 'why', value: text('because') }], flags }],
      status: { code: 'STATUS_CODE_ERROR', message: 'failed: größer' },
      flags,
    },
    {
      traceId,
      spanId: parentId,
      name: 'GET /größe/{id} 😀',
      kind: 'SPAN_KIND_SERVER',
      startTimeUnixNano: at(0, '123456789'),
      endTimeUnixNano: at(3, '999999999'),
      attributes: attributes(facts),
      status: { code: 'STATUS_CODE_OK' },
      flags,
    },
  ]
}

function metrics({ buckets, counter, gaugeStarts }: SampleFacts): Message[] {
  const measured = { attributes: [{ key: 'path', value: text('/größe') }], timeUnixNano: someTime }
  const point = { ...measured, startTimeUnixNano: someTime }
  const aggregationTemporality = 'AGGREGATION_TEMPORALITY_CUMULATIVE'
  const sizes = {
    ...point,
    count: '5',
    sum: 1055.5,
    min: 0.5,
    max: 500,
    explicitBounds: [1, 10, 100],
    bucketCounts: ['1', '1', '1', '2'],
  }
  const delays = { ...point, count: '4', sum: 7, min: 0, max: 4, zeroCount: '1', ...buckets }
  return [
    { name: 'sizes', unit: 'By', histogram: { aggregationTemporality, dataPoints: [sizes] } },
    { name: 'delays', unit: 's', exponentialHistogram: { aggregationTemporality, dataPoints: [delays] } },
    {
      name: 'requests',
      description: 'Requests seen',
      unit: '{request}',
      sum: { aggregationTemporality, isMonotonic: true, dataPoints: [{ ...point, ...counter }] },
    },
    { name: 'open', sum: { aggregationTemporality, dataPoints: [{ ...point, asDouble: -2.5 }] } },
    { name: 'load', gauge: { dataPoints: [{ ...(gaugeStarts ? point : measured), asDouble: 0.25 }] } },
  ]
}

function logRecords(facts: SampleFacts): Message[] {
  return [
    {
      timeUnixNano: at(0, '000000005'),
      observedTimeUnixNano: at(0, '000000006'),
      severityNumber: 'SEVERITY_NUMBER_ERROR3',
      severityText: 'ERROR3 – größer',
      body: { kvlistValue: { values: attributes(facts) } },
      attributes: attributes(facts),
      traceId: base64(facts.ids.traceId),
      spanId: base64(facts.ids.parentId),
      flags: facts.logFlags,
      eventName: 'sample.event',
    },
    {
      timeUnixNano: at(0, '000000007'),
      observedTimeUnixNano: at(0, '000000008'),
      body: text('plain 😀'),
    },
  ]
}
