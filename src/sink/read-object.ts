import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import pLimit from 'p-limit'
import { Failure } from '../foundation/failure.ts'
import { jsonFromProtobuf } from '../otlp/protobuf-to-json.ts'
import { splitTrace } from '../otlp/requests.ts'
import type { Encoding, Signal } from '../otlp/signal.ts'
import { traceHash } from '../otlp/walk.ts'
import type { Sql } from '../postgres/pool.ts'
import { findObject, findTraceRequests, type RequestPlace } from './catalog.ts'
import { parseObjectKey } from './object-key.ts'
import type { ObjectStore } from './object-store.ts'

const unzip = promisify(gunzip)
const TRACE_REQUESTS_MAX = 10_000
const TRACE_BYTES_MAX = 64 * 1024 * 1024
const RANGES_AT_ONCE = 8

/**
 * The requests of an object as OTLP JSON, one text each, in the order in which they were accepted. An object that the
 * catalog does not name is read whole, as one request, if its key is one of ours. Undefined when neither the catalog nor
 * the store has one.
 *
 * @throws Failure as the store and the database do; `client` for a key that is not one of ours, `outage` for an object
 * that the catalog names and the store does not have.
 */
export async function readObject(
  sql: Sql,
  store: ObjectStore,
  key: string,
  keyPrefix: string,
): Promise<AsyncIterable<string> | undefined> {
  const catalogued = await findObject(sql, key)
  const layout = catalogued ?? uncatalogued(key, keyPrefix)
  const body = await store.get(key)
  if (body !== undefined) return requestsOf(body, layout)
  if (catalogued !== undefined) throw notInStore(store, catalogued)
  return undefined
}

interface Layout {
  signal: Signal
  encoding: Encoding
  offsets: readonly number[]
}

function uncatalogued(key: string, keyPrefix: string): Layout {
  const name = parseObjectKey(key, keyPrefix)
  if (name === undefined) throw new Failure('client', `"${key}" is not the key of an object of ours`)
  return { signal: name.signal, encoding: name.encoding, offsets: [0] }
}

async function* requestsOf(body: Buffer, layout: Layout): AsyncIterable<string> {
  for (const [index, start] of layout.offsets.entries()) {
    const stored = body.subarray(start, layout.offsets[index + 1] ?? body.length)
    yield jsonFromProtobuf(layout.signal, await decode(stored, layout.encoding))
  }
}

/**
 * One trace as OTLP JSON (`{"resourceSpans": …}`): every span of it that is stored, with its resource and scope.
 * Undefined when none is. What still waits in the queue is not in it.
 *
 * @param traceId 32 hex digits.
 * @throws Failure `client` for another id, or when the trace is larger than 64 MiB.
 */
export async function readTrace(sql: Sql, store: ObjectStore, traceId: string): Promise<string | undefined> {
  if (!/^[0-9a-f]{32}$/i.test(traceId)) {
    throw new Failure('client', `"${traceId.slice(0, 100)}" is not a trace id: it must be 32 hex digits`)
  }
  const id = Buffer.from(traceId, 'hex')
  const places = await findTraceRequests(sql, traceHash(id, 0), TRACE_REQUESTS_MAX)
  const limit = pLimit(RANGES_AT_ONCE)
  let bytes = 0
  const parts = await Promise.all(
    places.map((place) =>
      limit(async () => {
        if (bytes > TRACE_BYTES_MAX) return undefined
        const spans = splitTrace(await readRequest(store, place), id)
        bytes += spans.length
        return spans
      }),
    ),
  )
  if (bytes > TRACE_BYTES_MAX || places.length === TRACE_REQUESTS_MAX) {
    throw new Failure(
      'client',
      `trace ${traceId} is larger than ${TRACE_BYTES_MAX} bytes or ${TRACE_REQUESTS_MAX} requests`,
    )
  }
  const trace = Buffer.concat(parts.filter((part) => part !== undefined))
  return trace.length === 0 ? undefined : jsonFromProtobuf('traces', trace)
}

async function readRequest(store: ObjectStore, place: RequestPlace): Promise<Buffer> {
  const { key, encoding, start, end } = place
  const stored = await store.get(key, { start, end })
  if (stored === undefined) throw notInStore(store, place)
  return await decode(stored, encoding)
}

/** The catalog keeps the bucket at the time of the put; a folder may have been moved since, so it is only told. */
function notInStore(store: ObjectStore, { key, bucket }: { key: string; bucket: string }): Failure {
  const where = bucket === store.bucket ? '' : `; it was put into ${bucket}, which the settings do not name`
  return new Failure('outage', `the object ${key} is in the catalog and not in ${store.bucket}${where}`)
}

async function decode(stored: Buffer, encoding: Encoding): Promise<Buffer> {
  return encoding === 'gzip' ? await unzip(stored) : stored
}
