import { createHash } from 'node:crypto'
import { gunzipSync } from 'node:zlib'
import { findMarker } from './generator.ts'
import type { Stage } from './machine.ts'
import { countItems, type StressSignal } from './otlp-messages.ts'

const signalNames: Readonly<Record<number, StressSignal>> = { 1: 'traces', 2: 'metrics', 3: 'logs' }
const encodingNames: Readonly<Record<number, 'identity' | 'gzip'>> = { 0: 'identity', 1: 'gzip' }
const objectsAtOnce = 8

/** One request as it lies in the store. */
export interface StoredRequest {
  readonly marker: string | undefined
  readonly signal: StressSignal
  readonly key: string
  /** Its number in the object, from 0. */
  readonly place: number
  readonly protobuf: Buffer
}

/** What store and catalog hold, beside the requests themselves. */
export interface StoreContents {
  readonly objects: number
  readonly bytes: number
  readonly requests: number
  /** Keys in the store that no catalog row names, and the reverse. */
  readonly keysWithoutRow: readonly string[]
  readonly rowsWithoutKey: readonly string[]
  /** Sentences about catalog rows that do not say what their objects hold. */
  readonly untrueRows: readonly string[]
  /** Bytes the bucket listing says versus the catalog, dead letters, and what is left in the queue. */
  readonly deadLetters: number
  readonly queueRows: number
  readonly batches: number
}

interface CatalogRow {
  key: string
  bucket: string
  signal: number
  encoding: number
  requests: number
  items: bigint
  bytes: bigint
  checksum: string
  offsets: number[]
  services: string[]
  queue_ids: bigint[]
}

/**
 * Reads every object of the catalog out of the store, cuts it into its requests at the offsets of its row, and hands each
 * to `visit`. Nothing of the program is used on the way but its tables.
 *
 * @param options.decodeEvery decodes every n-th object whole, as one message, with another decoder, and counts its items.
 */
export async function readBack(
  stage: Stage,
  visit: (request: StoredRequest) => void,
  options: { decodeEvery?: number; onProgress?: (done: number, all: number) => void } = {},
): Promise<StoreContents> {
  const { sql, store } = stage
  const rows = await sql<CatalogRow[]>`
    SELECT key, bucket, signal, encoding, requests, items, bytes, checksum, offsets, services, queue_ids
    FROM stored_object ORDER BY key`
  const listed = await store.list()
  const untrueRows: string[] = []
  const rowsWithoutKey: string[] = []
  const named = new Set<string>()
  const queueIds = new Set<bigint>()
  let [bytes, requests, next] = [0, 0, 0]

  const readOne = async (row: CatalogRow, decodeWhole: boolean): Promise<void> => {
    named.add(row.key)
    if (!listed.has(row.key)) {
      rowsWithoutKey.push(row.key)
      return
    }
    const object = await store.get(row.key)
    bytes += object.length
    requests += row.requests
    untrueRows.push(...faultsOf(row, object, store.bucket).map((fault) => `${row.key}: ${fault}`))
    for (const id of row.queue_ids) {
      if (queueIds.has(id)) untrueRows.push(`${row.key}: queue id ${id} is in two objects`)
      queueIds.add(id)
    }
    const signal = signalNames[row.signal]
    const encoding = encodingNames[row.encoding]
    if (signal === undefined || encoding === undefined) {
      untrueRows.push(`${row.key}: signal ${row.signal}, encoding ${row.encoding}`)
      return
    }
    const unpack = encoding === 'gzip' ? gunzipSync : (payload: Buffer) => payload
    for (const [place, start] of row.offsets.entries()) {
      const payload = object.subarray(start, row.offsets[place + 1] ?? object.length)
      const protobuf = unpack(payload)
      visit({ marker: findMarker(protobuf), signal, key: row.key, place, protobuf })
    }
    if (!decodeWhole) return
    const items = countItems(signal, unpack(object))
    if (items !== Number(row.items)) {
      untrueRows.push(`${row.key}: ${items} items in the whole object, the row says ${row.items}`)
    }
  }

  const reader = async (): Promise<void> => {
    for (let place = next++; place < rows.length; place = next++) {
      const row = rows[place]
      if (row === undefined) return
      try {
        await readOne(row, place % (options.decodeEvery ?? 1) === 0)
      } catch (error) {
        untrueRows.push(`${row.key}: cannot be read: ${String(error)}`)
      }
      options.onProgress?.(place + 1, rows.length)
    }
  }
  await Promise.all(Array.from({ length: objectsAtOnce }, reader))
  const [left] = await sql<{ queue_rows: bigint; batches: bigint; dead_letters: bigint }[]>`
    SELECT (SELECT count(*) FROM ingestion_queue) AS queue_rows,
      (SELECT count(*) FROM ingestion_batch) AS batches,
      (SELECT count(*) FROM dead_letter) AS dead_letters`
  return {
    objects: rows.length,
    bytes,
    requests,
    keysWithoutRow: [...listed].filter((key) => !named.has(key)),
    rowsWithoutKey,
    untrueRows,
    deadLetters: Number(left?.dead_letters),
    queueRows: Number(left?.queue_rows),
    batches: Number(left?.batches),
  }
}

function faultsOf(row: CatalogRow, object: Buffer, bucket: string): string[] {
  const faults: string[] = []
  const checksum = `sha256:${createHash('sha256').update(object).digest('hex')}`
  if (row.bucket !== bucket) faults.push(`the row says bucket ${row.bucket}`)
  if (Number(row.bytes) !== object.length) faults.push(`${object.length} bytes, the row says ${row.bytes}`)
  if (row.checksum !== checksum) faults.push(`${checksum}, the row says ${row.checksum}`)
  if (row.offsets.length !== row.requests)
    faults.push(`${row.offsets.length} offsets, ${row.requests} requests`)
  const ascending = row.offsets.every((offset, place) =>
    place === 0 ? offset === 0 : offset > (row.offsets[place - 1] ?? 0),
  )
  if (!ascending) faults.push(`offsets ${row.offsets.join(' ')} do not ascend from 0`)
  return faults
}
