import { type Encoding, encodingOfNumber, type Signal, signalOfNumber, signals } from '../otlp/signal.ts'
import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'

/** An object as the catalog names it. */
export interface CatalogObject {
  objectId: string
  batchId: string
  tenant: string
  signal: Signal
  encoding: Encoding
  bucket: string
  key: string
  requests: number
  items: number
  bytes: number
  minTime: Date | null
  maxTime: Date | null
  services: readonly string[]
  checksum: string
  storedAt: Date
}

export interface ObjectFilter {
  signal?: Signal
  tenant?: string
  storedSince?: Date
  limit: number
}

interface ObjectRecord {
  object_id: string
  batch_id: string
  tenant: string
  signal: number
  encoding: number
  bucket: string
  key: string
  requests: number
  items: bigint
  bytes: bigint
  min_time: Date | null
  max_time: Date | null
  services: string[]
  checksum: string
  stored_at: Date
}

const list = statement<ObjectRecord>('sink/list_objects')

/** The objects that fit, the newest first. */
export async function listObjects(sql: Sql, filter: ObjectFilter): Promise<CatalogObject[]> {
  const found = await list(sql, [
    filter.signal === undefined ? null : signals[filter.signal].number,
    filter.tenant ?? null,
    filter.storedSince?.toISOString() ?? null,
    filter.limit,
  ])
  return found.map((row) => ({
    objectId: row.object_id,
    batchId: row.batch_id,
    tenant: row.tenant,
    signal: signalOfNumber(row.signal),
    encoding: encodingOfNumber(row.encoding),
    bucket: row.bucket,
    key: row.key,
    requests: row.requests,
    items: Number(row.items),
    bytes: Number(row.bytes),
    minTime: row.min_time,
    maxTime: row.max_time,
    services: row.services,
    checksum: row.checksum,
    storedAt: row.stored_at,
  }))
}

/** Where the requests of one object lie. */
export interface ObjectLayout {
  bucket: string
  key: string
  signal: Signal
  encoding: Encoding
  bytes: number
  offsets: readonly number[]
}

type LayoutRecord = {
  bucket: string
  key: string
  signal: number
  encoding: number
  bytes: bigint
  offsets: number[]
}
const find = statement<LayoutRecord>('sink/find_object')

/** Undefined when the catalog has no such key. */
export async function findObject(sql: Sql, key: string): Promise<ObjectLayout | undefined> {
  const [row] = await find(sql, [key])
  if (row === undefined) return undefined
  return {
    bucket: row.bucket,
    key: row.key,
    signal: signalOfNumber(row.signal),
    encoding: encodingOfNumber(row.encoding),
    bytes: Number(row.bytes),
    offsets: row.offsets,
  }
}

/** Bytes `start` up to and not including `end` of the object `key`: one request, as stored. */
export interface RequestPlace {
  bucket: string
  key: string
  encoding: Encoding
  start: number
  end: number
}

type PlaceRecord = { bucket: string; key: string; encoding: number; start_byte: number; end_byte: number }
const findPlaces = statement<PlaceRecord>('sink/find_trace_requests')

/** Requests that may hold spans of a trace with this hash, at most `limit`. Another trace may have the same hash. */
export async function findTraceRequests(sql: Sql, traceHash: bigint, limit: number): Promise<RequestPlace[]> {
  const found = await findPlaces(sql, [traceHash, limit])
  return found.map((row) => ({
    bucket: row.bucket,
    key: row.key,
    encoding: encodingOfNumber(row.encoding),
    start: row.start_byte,
    end: row.end_byte,
  }))
}
