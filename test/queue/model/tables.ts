import { encodingNumbers, signals } from '../../../src/otlp/signal.ts'
import type { Sql } from '../../../src/postgres/pool.ts'
import type { StagedRow } from '../../../src/queue/copy-format.ts'
import type { BatchState, RequestState } from '../states.ts'
import { bytesOf, type Model, type ModelRequest } from './model.ts'

/** Everything that the queue and the catalog hold, a line for each thing: what the model and the tables must agree on. */
export type Lines = ReadonlyMap<string, string>

/** The tables as one look saw them. */
export interface Seen {
  lines: Lines
  requests: ReadonlyMap<string, RequestState>
  batches: ReadonlyMap<string, BatchState>
}

type Values = Readonly<Record<string, unknown>>

/** The same, as the database tells it. */
export interface SeenRecords {
  requests: { name: string; state: RequestState; content: Values; place: Values }[]
  batches: { batch: string; state: BatchState; status: string; values: Values }[]
  objects: {
    batch: string
    key: string
    ids: string[]
    offsets: number[]
    requests: number
    content: Values
  }[]
  abandoned: { batch: string; state: BatchState; keys: string[] }[]
}

/** One statement, so one snapshot. Text of bigints: JSON numbers would lose digits. */
const lookText = `
SELECT jsonb_build_object(
  'requests', (SELECT coalesce(jsonb_agg(r), '[]') FROM (
    SELECT q.request_id AS name, s.status AS state, jsonb_build_object(
      'id', q.id::text, 'received', q.received_at, 'tenant', q.tenant, 'signal', q.signal, 'encoding', q.encoding,
      'items', q.items, 'bytes', q.bytes, 'unpacked', q.unpacked_bytes, 'payload', convert_from(q.payload, 'UTF8')
    ) AS content, jsonb_build_object(
      'batch', s.batch_id, 'attempts', s.attempts, 'outages', s.outages, 'owner', s.lease_owner,
      'first', s.first_error, 'last', s.last_error
    ) AS place
    FROM ingestion_queue q JOIN ingestion_queue_status s USING (id)
    UNION ALL
    SELECT d.request_id, 'dead', jsonb_build_object(
      'id', d.id::text, 'received', d.received_at, 'tenant', d.tenant, 'signal', d.signal, 'encoding', d.encoding,
      'items', d.items, 'bytes', d.bytes, 'unpacked', d.unpacked_bytes, 'payload', convert_from(d.payload, 'UTF8')
    ), jsonb_build_object(
      'batch', d.batch_id, 'reason', d.reason, 'attempts', d.attempts, 'first', d.first_error, 'last', d.last_error
    )
    FROM dead_letter d
  ) r),
  'batches', (SELECT coalesce(jsonb_agg(b), '[]') FROM (
    SELECT batch_id AS batch, status, CASE
      WHEN status = 'processing' THEN CASE WHEN lease_until <= clock_timestamp() THEN 'expired' ELSE 'held' END
      ELSE CASE WHEN next_attempt_at <= clock_timestamp() THEN 'due' ELSE 'waiting' END
    END AS state, jsonb_build_object(
      'owner', lease_owner, 'token', CASE status WHEN 'processing' THEN lease_token END, 'rows', rows, 'bytes', bytes,
      'attempts', attempts, 'outages', outages, 'takeovers', takeovers, 'first', first_error, 'last', last_error
    ) AS values
    FROM ingestion_batch
  ) b),
  'objects', (SELECT coalesce(jsonb_agg(o), '[]') FROM (
    SELECT batch_id AS batch, key, queue_ids::text[] AS ids, offsets, requests, jsonb_build_object(
      'tenant', tenant, 'signal', signal, 'encoding', encoding, 'items', items, 'bytes', bytes
    ) AS content
    FROM stored_object
  ) o),
  'abandoned', (SELECT coalesce(jsonb_agg(a), '[]') FROM (
    SELECT batch_id AS batch, keys, CASE WHEN swept_at IS NULL THEN 'abandoned' ELSE 'looked at' END AS state
    FROM abandoned_batch
  ) a)
) AS seen`

export async function readTables(sql: Sql): Promise<SeenRecords> {
  const [row] = await sql.unsafe<{ seen: SeenRecords }[]>(lookText, [], { prepare: true })
  if (row === undefined) throw new Error('the look answered nothing')
  return row.seen
}

/** Names for people instead of ids. */
export async function lookAtTables(sql: Sql, model: Model): Promise<Seen> {
  const { requests, batches, objects, abandoned } = await readTables(sql)
  const lines = new Map<string, string>()
  const note = (name: string, text: string) =>
    lines.set(name, [lines.get(name), text].filter((part) => part !== undefined).join(' AND ALSO '))
  const requestStates = new Map<string, RequestState>()
  const batchStates = new Map<string, BatchState>()
  for (const { name, state, content, place } of requests) {
    const batch = typeof place.batch === 'string' ? model.nameOf(place.batch) : null
    note(name, said(state, { ...place, batch }))
    note(`content of ${name}`, said('', content))
    requestStates.set(name, state)
  }
  const namesOfIds = new Map(model.requests.map(({ id, name }) => [String(id), name]))
  for (const { batch, state, values } of batches) {
    note(model.nameOf(batch), said(state, values))
    batchStates.set(model.nameOf(batch), state)
  }
  for (const { batch, key, ids, requests: count, content } of objects) {
    const names = ids.map((id) => namesOfIds.get(id) ?? `row ${id}`)
    note(`object ${key}`, said(model.nameOf(batch), { ...content, count, requests: names.join(', ') }))
    batchStates.set(model.nameOf(batch), 'stored')
    for (const name of names) {
      note(name, said('stored', { key }))
      requestStates.set(name, 'stored')
    }
  }
  for (const { batch, state, keys } of abandoned) {
    note(`left over of ${model.nameOf(batch)}`, said(state, { keys: keys.join(' ') }))
    batchStates.set(model.nameOf(batch), state)
  }
  return { lines, requests: requestStates, batches: batchStates }
}

/** What the model says that the look must see. */
export function linesOf(model: Model): Lines {
  const lines = new Map<string, string>()
  for (const request of model.requests) {
    const { name, place } = request
    if (place.is === 'discarded') continue
    lines.set(name, placeLine(model, request))
    if (place.is !== 'stored') lines.set(`content of ${name}`, said('', contentOf(request)))
  }
  for (const batch of model.batches.values()) {
    const { status, isOpen, owner, leaseToken, requests, attempts, outages, takeovers } = batch
    const state = status === 'processing' ? (isOpen ? 'expired' : 'held') : isOpen ? 'due' : 'waiting'
    const values = {
      owner,
      token: status === 'processing' ? leaseToken : null,
      rows: requests.length,
      bytes: bytesOf(batch),
      attempts,
      outages,
      takeovers,
      first: batch.firstError,
      last: batch.lastError,
    }
    lines.set(model.nameOf(batch.id), said(state, values))
  }
  for (const [key, { batchId, requests }] of model.catalog) {
    const values = {
      ...kindOf(requests[0]?.staged),
      items: sumOf(requests, ({ items }) => items),
      bytes: sumOf(requests, ({ payload }) => payload.length),
      count: requests.length,
      requests: requests.map(({ name }) => name).join(', '),
    }
    lines.set(`object ${key}`, said(model.nameOf(batchId), values))
  }
  for (const { batchId, keys, isLookedAt } of model.abandoned) {
    const state = isLookedAt ? 'looked at' : 'abandoned'
    lines.set(`left over of ${model.nameOf(batchId)}`, said(state, { keys: keys.join(' ') }))
  }
  return lines
}

function placeLine(model: Model, { place }: ModelRequest): string {
  switch (place.is) {
    case 'pending':
      return said('pending', { attempts: 0, outages: 0 })
    case 'batched': {
      const { id, status, attempts, outages, owner, firstError, lastError } = place.batch
      const values = {
        batch: model.nameOf(id),
        attempts,
        outages,
        owner,
        first: firstError,
        last: lastError,
      }
      return said(status, values)
    }
    case 'stored':
      return said('stored', { key: place.key })
    case 'dead':
      return said('dead', { ...place.letter })
    case 'discarded':
      return 'gone'
  }
}

function contentOf({ id, receivedAt, staged }: ModelRequest): Values {
  return {
    id: String(id),
    received: receivedAt,
    ...kindOf(staged),
    items: staged.items,
    bytes: staged.payload.length,
    unpacked: staged.unpackedBytes,
    payload: staged.payload.toString(),
  }
}

function kindOf(staged: StagedRow | undefined): Values {
  if (staged === undefined) return {}
  const { tenant, signal, encoding } = staged
  return { tenant, signal: signals[signal].number, encoding: encodingNumbers[encoding] }
}

function sumOf(requests: readonly ModelRequest[], value: (staged: StagedRow) => number): number {
  return requests.reduce((sum, { staged }) => sum + value(staged), 0)
}

/** `held, owner worker A, rows 2`: in the order of the names, without what is not there. */
function said(first: string, values: Values): string {
  const parts = Object.entries(values)
    .filter(([, value]) => value !== null && value !== undefined && value !== '')
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name} ${value}`)
  return [first, ...parts].filter((part) => part !== '').join(', ')
}
