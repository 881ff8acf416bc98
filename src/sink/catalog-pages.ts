import { type Encoding, encodingOfNumber, type Signal, signalOfNumber } from '../otlp/signal.ts'
import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'

/** What the catalog says about an object that can be compared with the object. */
export interface CataloguedObject {
  bucket: string
  key: string
  signal: Signal
  encoding: Encoding
  requests: number
  items: number
  bytes: number
  checksum: string
  /** Where each request starts. */
  offsets: readonly number[]
}

/** Objects that were stored in a span of time. */
export interface StoredIn {
  since: Date | undefined
  before: Date
}

interface PageRecord {
  object_id: string
  stored_at_text: string
  bucket: string
  key: string
  signal: number
  encoding: number
  requests: number
  items: bigint
  bytes: bigint
  checksum: string
  offsets: number[]
}

const PAGE_ROWS = 200
const FIRST_ID = '00000000-0000-0000-0000-000000000000'
const count = statement<{ objects: bigint; bytes: bigint }>('sink/count_objects')
const page = statement<PageRecord>('sink/page_objects')
const findKeys = statement<{ key: string }>('sink/find_catalogued')

export async function countObjects(sql: Sql, span: StoredIn): Promise<{ objects: number; bytes: number }> {
  const [row] = await count(sql, [span.since?.toISOString() ?? null, span.before.toISOString()])
  return { objects: Number(row?.objects ?? 0), bytes: Number(row?.bytes ?? 0) }
}

/** The catalog in the order in which it grew, page by page, so that it may be larger than memory. */
export async function* pageObjects(sql: Sql, span: StoredIn): AsyncGenerator<CataloguedObject[]> {
  let after = { storedAt: span.since?.toISOString() ?? '-infinity', objectId: FIRST_ID }
  for (;;) {
    const rows = await page(sql, [after.storedAt, after.objectId, span.before.toISOString(), PAGE_ROWS])
    if (rows.length > 0) yield rows.map(cataloguedObject)
    const last = rows.at(-1)
    if (last === undefined || rows.length < PAGE_ROWS) return
    after = { storedAt: last.stored_at_text, objectId: last.object_id }
  }
}

/** Which of these keys the catalog names. */
export async function findCatalogued(sql: Sql, keys: readonly string[]): Promise<ReadonlySet<string>> {
  const found = await findKeys(sql, [JSON.stringify(keys)])
  return new Set(found.map(({ key }) => key))
}

function cataloguedObject(row: PageRecord): CataloguedObject {
  const { bucket, key, requests, checksum, offsets } = row
  return {
    bucket,
    key,
    requests,
    checksum,
    offsets,
    signal: signalOfNumber(row.signal),
    encoding: encodingOfNumber(row.encoding),
    items: Number(row.items),
    bytes: Number(row.bytes),
  }
}
