import { ROOT_CONTEXT, SeverityNumber, SpanKind, SpanStatusCode, trace, ValueType } from '@opentelemetry/api'
import { AggregationType, type ViewOptions } from '@opentelemetry/sdk-metrics'
import type { JsSdk } from './js-sdk.ts'
import { type ExpectedSample, expectedSample, type SampleIds } from './sample.ts'

const second = 1_800_000_000

/** Every kind of value that the SDK for JavaScript can send. */
const values = {
  text: 'Grüße, 世界 😀',
  'empty text': '',
  whole: -42,
  'over 2^53': 2 ** 53 + 2,
  fraction: 0.1,
  yes: true,
  no: false,
  bytes: new Uint8Array([0, 127, 128, 255]),
  texts: ['a', '', 'ü'],
  numbers: [1, 0.5, [2]],
  map: { inner: { deep: 'value' }, count: 3 },
}

/** The histograms of the sample: one with the bounds that are looked for, one exponential. */
export const sampleViews: ViewOptions[] = [
  {
    instrumentName: 'sizes',
    aggregation: { type: AggregationType.EXPLICIT_BUCKET_HISTOGRAM, options: { boundaries: [1, 10, 100] } },
  },
  { instrumentName: 'delays', aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } },
]

/** Sends the sample, one export a signal, ends the SDK, and says what must be found in the store. */
export async function sendJsSample(sdk: JsSdk, service: string): Promise<ExpectedSample> {
  const ids = sendSpans(sdk)
  sendMetrics(sdk)
  sendLogs(sdk, ids)
  await sdk.shutdown()
  // At scale 6 a bucket ends at a power of 2^(1/64): 1, 2 and 4 are the last values of every 64th.
  const bucketCounts = Array.from({ length: 129 }, (_, at) => (at % 64 === 0 ? '1' : '0'))
  return expectedSample({
    service,
    ids,
    wholeNumbers: [
      { key: 'whole', value: { intValue: '-42' } },
      { key: 'over 2^53', value: { intValue: '9007199254740994' } },
    ],
    numbers: {
      arrayValue: {
        values: [{ intValue: '1' }, { doubleValue: 0.5 }, { arrayValue: { values: [{ intValue: '2' }] } }],
      },
    },
    spanFlags: 257,
    logFlags: 1,
    buckets: { scale: 6, positive: { offset: -1, bucketCounts }, negative: {} },
    counter: { asInt: '9007199254740991' },
    gaugeStarts: true,
  })
}

function sendSpans(sdk: JsSdk): SampleIds {
  const tracer = sdk.traces.getTracer('sample', '1.2.3')
  const parent = tracer.startSpan('GET /größe/{id} 😀', {
    kind: SpanKind.SERVER,
    startTime: [second, 123_456_789],
    attributes: values,
  })
  const links = [{ context: parent.spanContext(), attributes: { why: 'because' } }]
  const options = { kind: SpanKind.CLIENT, startTime: [second, 200_000_001] as [number, number], links }
  const child = tracer.startSpan('child', options, trace.setSpan(ROOT_CONTEXT, parent))
  child.addEvent('exception', { 'exception.message': 'größer als 2^53' }, [second, 300_000_000])
  child.addEvent('nothing more', {}, [second + 1, 0])
  child.setStatus({ code: SpanStatusCode.ERROR, message: 'failed: größer' })
  child.end([second + 2, 1])
  parent.setStatus({ code: SpanStatusCode.OK })
  parent.end([second + 3, 999_999_999])
  const { traceId, spanId: parentId } = parent.spanContext()
  return { traceId, parentId, childId: child.spanContext().spanId }
}

function sendMetrics(sdk: JsSdk): void {
  const meter = sdk.metrics.getMeter('sample', '1.2.3')
  const labels = { path: '/größe' }
  const requests = { description: 'Requests seen', unit: '{request}', valueType: ValueType.INT }
  meter.createCounter('requests', requests).add(2 ** 53 - 1, labels)
  meter.createUpDownCounter('open').add(-2.5, labels)
  meter.createGauge('load').record(0.25, labels)
  const sizes = meter.createHistogram('sizes', { unit: 'By' })
  for (const size of [0.5, 5, 50, 500, 500]) sizes.record(size, labels)
  const delays = meter.createHistogram('delays', { unit: 's' })
  for (const delay of [0, 1, 2, 4]) delays.record(delay, labels)
}

function sendLogs(sdk: JsSdk, { traceId, parentId }: SampleIds): void {
  const logger = sdk.logs.getLogger('sample', '1.2.3')
  logger.emit({
    timestamp: [second, 5],
    observedTimestamp: [second, 6],
    severityNumber: SeverityNumber.ERROR3,
    severityText: 'ERROR3 – größer',
    body: values,
    attributes: values,
    eventName: 'sample.event',
    context: trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId: parentId, traceFlags: 1 }),
  })
  logger.emit({ timestamp: [second, 7], observedTimestamp: [second, 8], body: 'plain 😀' })
}
