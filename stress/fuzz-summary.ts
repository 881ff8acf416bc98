import type { Signal } from '../src/otlp/signal.ts'
import type { Summary } from '../src/otlp/summary.ts'

/** Most of what a summary keeps, as design.md fixes it. */
const servicesMax = 64
const traceHashesMax = 10_000
const serviceCharactersMax = 256

/** A message as protobufjs decodes it. */
type Decoded = Readonly<Record<string, unknown>>

const parts: Record<Signal, readonly [string, string, string]> = {
  traces: ['resourceSpans', 'scopeSpans', 'spans'],
  metrics: ['resourceMetrics', 'scopeMetrics', 'metrics'],
  logs: ['resourceLogs', 'scopeLogs', 'logRecords'],
  profiles: ['resourceProfiles', 'scopeProfiles', 'profiles'],
}
const metricKinds = ['gauge', 'sum', 'histogram', 'exponentialHistogram', 'summary']

function list(message: unknown, name: string): Decoded[] {
  return ((message as Decoded | null | undefined)?.[name] as Decoded[] | undefined) ?? []
}

function itemsOf(signal: Signal, request: unknown): Decoded[] {
  const [resources, scopes, things] = parts[signal]
  const found = list(request, resources).flatMap((resource) =>
    list(resource, scopes).flatMap((scope) => list(scope, things)),
  )
  if (signal !== 'metrics') return found
  return found.flatMap((metric) => metricKinds.flatMap((kind) => list(metric[kind], 'dataPoints')))
}

/** How many items a request has, counted in what protobufjs decoded. */
export function countElsewhere(signal: Signal, request: unknown): number {
  return itemsOf(signal, request).length
}

/** The summary of a good request, made from what protobufjs decoded. */
export function summaryElsewhere(signal: Signal, request: unknown): Summary {
  const items = itemsOf(signal, request)
  const times = items
    .flatMap((item) => timesOf(signal, item))
    .filter((time) => time > 0n && time < 2n ** 63n)
    .toSorted((one, other) => (one < other ? -1 : 1))
  const services = new Set(list(request, parts[signal][0]).flatMap(servicesOf))
  const hashes = new Set(signal === 'traces' ? items.flatMap(hashOf) : [])
  return {
    minTimeUnixNano: times.at(0),
    maxTimeUnixNano: times.at(-1),
    services: [...services].slice(0, servicesMax),
    traceHashes: BigInt64Array.from([...hashes].slice(0, traceHashesMax)),
    cut: services.size > servicesMax || hashes.size > traceHashesMax,
  }
}

function timesOf(signal: Signal, item: Decoded): bigint[] {
  const time = (name: string) => BigInt(String(item[name] ?? 0))
  switch (signal) {
    case 'traces':
      return [time('startTimeUnixNano'), time('endTimeUnixNano')]
    case 'logs':
      return [time('timeUnixNano') === 0n ? time('observedTimeUnixNano') : time('timeUnixNano')]
    case 'metrics':
    case 'profiles':
      return [time('timeUnixNano')]
  }
}

function servicesOf(part: Decoded): string[] {
  return list(part.resource, 'attributes').flatMap(({ key, value }) => {
    const name = (value as Decoded | null | undefined)?.stringValue
    // A string that is not set is an empty one of the prototype.
    if (key !== 'service.name' || typeof name !== 'string' || !Object.hasOwn(value as object, 'stringValue'))
      return []
    return [[...name].slice(0, serviceCharactersMax).join('').replaceAll('\0', '\ufffd')]
  })
}

function hashOf({ traceId }: Decoded): bigint[] {
  const id = Buffer.from((traceId as Uint8Array | undefined) ?? [])
  return id.length === 16 ? [BigInt.asIntN(64, id.readBigUInt64BE(0) ^ id.readBigUInt64BE(8))] : []
}
