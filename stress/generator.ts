import { deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { encodeRequest, type Model, type StressSignal, stressSignals } from './otlp-messages.ts'
import { type SeededRandom, seededRandom } from './seeded-random.ts'

export type WireEncoding = 'identity' | 'gzip' | 'zstd' | 'deflate'

/** One export request: what goes on the wire, and what must come out of the store. */
export interface GeneratedRequest {
  /** Stands in a resource attribute of the request and nowhere else. */
  readonly marker: string
  readonly signal: StressSignal
  readonly format: 'protobuf' | 'json'
  readonly encoding: WireEncoding
  readonly items: number
  readonly services: readonly string[]
  /** How many spans there are of each trace, by its id in hex; of a traces request only. */
  readonly traces: ReadonlyMap<string, number>
  readonly contentType: string
  /** As it goes on the wire. */
  readonly body: Buffer
  /** The same request as protobuf; for a protobuf request, the very bytes before compression. */
  readonly protobuf: Buffer
}

export interface GeneratorOptions {
  seed: number
  /** Tells the requests of one run from those of another in the same store. */
  run: string
  /** Most items of a request. */
  itemsMax?: number
  /** Undefined mixes them. */
  format?: 'protobuf' | 'json' | undefined
  encoding?: WireEncoding | undefined
}

/** Characters of every marker, so that it can be found in bytes without decoding them. */
export const markerLength = 28
const markerStart = 'stress:'

/** The marker of request `index`; `run` is at most 12 letters and digits. */
export function markerOf(run: string, index: number): string {
  return `${markerStart}${run.padStart(12, '0')}:${index.toString(36).padStart(8, '0')}`
}

/** The index of the request that has this marker. */
export function indexOfMarker(marker: string): number {
  return Number.parseInt(marker.slice(-8), 36)
}

/** The last marker in the protobuf bytes of a request. */
export function findMarker(protobuf: Buffer): string | undefined {
  const at = protobuf.lastIndexOf(markerStart)
  return at === -1 ? undefined : protobuf.toString('latin1', at, at + markerLength)
}

/**
 * Request number `index` of a seed: the same bytes each time it is asked for. Signals, formats, encodings and sizes
 * are mixed; most requests are small and one in twenty is large, as exporters send them.
 */
export function generateRequest(options: GeneratorOptions, index: number): GeneratedRequest {
  const random = seededRandom(Math.imul(options.seed | 0, 0x01000193) ^ Math.imul(index + 1, 0x27d4eb2f))
  const signal = random.pick(stressSignals)
  const drawnFormat = random.chance(0.25) ? 'json' : 'protobuf'
  const drawnEncoding = random.pick<WireEncoding>(['identity', 'gzip', 'gzip', 'gzip', 'zstd', 'deflate'])
  const { format = drawnFormat, encoding = drawnEncoding } = options
  const itemsMax = options.itemsMax ?? 400
  const items = random.between(1, random.chance(0.05) ? itemsMax : Math.min(40, itemsMax))
  const marker = markerOf(options.run, index)
  const content = contentOf(random, signal, marker, items)
  const protobuf = encodeRequest(signal, content.model)
  const plain = format === 'json' ? Buffer.from(jsonOf(content.model)) : protobuf
  return {
    marker,
    signal,
    format,
    encoding,
    items,
    services: content.services,
    traces: content.traces,
    contentType:
      format === 'protobuf'
        ? 'application/x-protobuf'
        : random.pick(['application/json', 'application/json; charset=utf-8']),
    body: compressed(random, encoding, plain),
    protobuf,
  }
}

interface Content {
  model: Model
  services: string[]
  traces: Map<string, number>
}

function contentOf(random: SeededRandom, signal: StressSignal, marker: string, items: number): Content {
  const services = random.pick<string[]>([['checkout'], ['cart'], ['checkout', 'größe ✓'], ['payments-eu']])
  const resources = services.map((service, place) => ({
    attributes: [
      { key: 'service.name', value: { stringValue: service } },
      ...(place === 0 ? [{ key: 'stress.marker', value: { stringValue: marker } }] : []),
      ...attributes(random, random.between(0, 6)),
    ],
  }))
  const startNano = 1_790_000_000_000_000_000n + BigInt(random.between(0, 1_000_000_000))
  const traces = new Map<string, number>()
  const share = (place: number) =>
    Math.floor(items / resources.length) + (place < items % resources.length ? 1 : 0)
  const scope = { name: 'stress', version: '1.2.3' }
  if (signal === 'traces') {
    const resourceSpans = resources.map((resource, place) => ({
      resource,
      scopeSpans: [{ scope, spans: spans(random, startNano, share(place), traces), schemaUrl: '' }],
      schemaUrl: 'https://example.org/schema/1.0.0',
    }))
    return { model: { resourceSpans }, services, traces }
  }
  if (signal === 'metrics') {
    const resourceMetrics = resources.map((resource, place) => ({
      resource,
      scopeMetrics: [{ scope, metrics: metrics(random, startNano, share(place)) }],
    }))
    return { model: { resourceMetrics }, services, traces }
  }
  const resourceLogs = resources.map((resource, place) => ({
    resource,
    scopeLogs: [{ scope, logRecords: logRecords(random, startNano, share(place)) }],
  }))
  return { model: { resourceLogs }, services, traces }
}

function spans(random: SeededRandom, startNano: bigint, count: number, traces: Map<string, number>): Model[] {
  let traceId = random.bytes(16)
  return Array.from({ length: count }, (_, place) => {
    if (place === 0 || random.chance(0.1)) traceId = random.bytes(16)
    const id = traceId.toString('hex')
    traces.set(id, (traces.get(id) ?? 0) + 1)
    const start = startNano + BigInt(place) * 1_000_003n
    return {
      traceId,
      spanId: random.bytes(8),
      ...(random.chance(0.5) ? { parentSpanId: random.bytes(8) } : {}),
      name: random.pick(['GET /cart', 'SELECT orders', 'räumen ☂', 'publish']),
      kind: random.between(1, 5),
      startTimeUnixNano: String(start),
      endTimeUnixNano: String(start + BigInt(random.between(1, 2_000_000_000))),
      attributes: attributes(random, random.between(0, 8)),
      events: random.chance(0.1)
        ? [{ timeUnixNano: String(start), name: 'exception', attributes: attributes(random, 2) }]
        : [],
      links: random.chance(0.05) ? [{ traceId: random.bytes(16), spanId: random.bytes(8) }] : [],
      status: random.chance(0.1) ? { code: 2, message: 'timed out' } : {},
      flags: 257,
    }
  })
}

function metrics(random: SeededRandom, startNano: bigint, count: number): Model[] {
  const out: Model[] = []
  for (let left = count; left > 0; ) {
    const points = Math.min(left, random.between(1, 20))
    left -= points
    const times = (place: number) => ({
      startTimeUnixNano: String(startNano),
      timeUnixNano: String(startNano + BigInt(place + 1) * 10_000_000_000n),
      attributes: attributes(random, random.between(0, 4)),
    })
    const data = Array.from({ length: points }, (_, place) => place)
    out.push({
      name: `stress.metric.${random.between(1, 50)}`,
      unit: 'By',
      description: 'made by the stress generator',
      ...random.pick<() => Model>([
        () => ({
          gauge: {
            dataPoints: data.map((place) => ({ ...times(place), asDouble: random.fraction() * 1e6 })),
          },
        }),
        () => ({
          sum: {
            aggregationTemporality: 2,
            isMonotonic: true,
            dataPoints: data.map((place) => ({
              ...times(place),
              asInt: String(9_007_199_254_740_993n + BigInt(place)),
            })),
          },
        }),
        () => ({
          histogram: {
            aggregationTemporality: 1,
            dataPoints: data.map((place) => ({
              ...times(place),
              count: '6',
              sum: random.fraction() * 100,
              bucketCounts: ['1', '2', '3'],
              explicitBounds: [0.5, 10],
              ...(random.chance(0.5) ? { min: 0, max: random.fraction() * 100 } : {}),
            })),
          },
        }),
        () => ({
          exponentialHistogram: {
            aggregationTemporality: 2,
            dataPoints: data.map((place) => ({
              ...times(place),
              count: '7',
              sum: -1.5,
              scale: -3,
              zeroCount: '1',
              positive: { offset: -2, bucketCounts: ['1', '300', '18446744073709551615'] },
            })),
          },
        }),
        () => ({
          summary: {
            dataPoints: data.map((place) => ({
              ...times(place),
              count: '3',
              sum: 4.5,
              quantileValues: [
                { quantile: 0.5, value: 1 },
                { quantile: 0.99, value: 3 },
              ],
            })),
          },
        }),
      ])(),
    })
  }
  return out
}

function logRecords(random: SeededRandom, startNano: bigint, count: number): Model[] {
  return Array.from({ length: count }, (_, place) => ({
    timeUnixNano: random.chance(0.1) ? '0' : String(startNano + BigInt(place) * 999_983n),
    observedTimeUnixNano: String(startNano + BigInt(place) * 1_000_000n),
    severityNumber: random.between(1, 24),
    severityText: random.pick(['INFO', 'WARN', 'ERROR']),
    body: random.chance(0.9) ? { stringValue: sentence(random) } : value(random, 2),
    attributes: attributes(random, random.between(0, 6)),
    ...(random.chance(0.3) ? { traceId: random.bytes(16), spanId: random.bytes(8), flags: 1 } : {}),
  }))
}

function attributes(random: SeededRandom, count: number): Model[] {
  return Array.from({ length: count }, (_, place) => ({
    key: random.pick(['http.route', 'db.system', 'user.id', 'größe', 'k8s.pod.name']) + place,
    value: value(random, 2),
  }))
}

function value(random: SeededRandom, depth: number): Model {
  const kind = random.between(0, depth === 0 ? 7 : 9)
  if (kind <= 3) return { stringValue: sentence(random) }
  if (kind === 4) return { intValue: random.between(-1000, 1000) }
  if (kind === 5) return { intValue: random.pick(['9223372036854775807', '-9223372036854775808', '42']) }
  if (kind === 6) return { doubleValue: random.fraction() * 1e9 - 5e8 }
  if (kind === 7) return random.pick<Model>([{ boolValue: true }, { bytesValue: random.bytes(5) }, {}])
  if (kind === 8) {
    return { arrayValue: { values: Array.from({ length: 3 }, () => value(random, depth - 1)) } }
  }
  return { kvlistValue: { values: [{ key: 'inner', value: value(random, depth - 1) }] } }
}

function sentence(random: SeededRandom): string {
  const words = [
    'order',
    'placed',
    'naïve',
    '注文',
    'retry',
    'timeout',
    '🚚',
    'customer',
    '"quoted"',
    '\\',
    '\n',
  ]
  return Array.from({ length: random.between(1, 6) }, () => words[random.between(0, words.length - 1)]).join(
    ' ',
  )
}

const idFields: ReadonlySet<string> = new Set(['traceId', 'spanId', 'parentSpanId'])

/** OTLP JSON: ids in hex, other bytes in base64, everything else as it stands. */
function jsonOf(model: Model): string {
  return JSON.stringify(model, function (this: Record<string, unknown>, key: string, written: unknown) {
    const original = this[key]
    if (!Buffer.isBuffer(original)) return written
    return original.toString(idFields.has(key) ? 'hex' : 'base64')
  })
}

/** One in ten comes as two gzip members or zstd frames, which a reader has to take for one body. */
function compressed(random: SeededRandom, encoding: WireEncoding, plain: Buffer): Buffer {
  if (encoding === 'identity') return plain
  if (encoding === 'deflate') return deflateSync(plain)
  const pack = encoding === 'gzip' ? gzipSync : zstdCompressSync
  if (!random.chance(0.1)) return pack(plain)
  const middle = random.between(0, plain.length)
  return Buffer.concat([pack(plain.subarray(0, middle)), pack(plain.subarray(middle))])
}
