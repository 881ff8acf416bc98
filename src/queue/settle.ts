import { v7 as uuidv7 } from 'uuid'
import { asFailure } from '../foundation/failure.ts'
import { uuidV7Milliseconds } from '../foundation/uuid-time.ts'
import { type Encoding, encodingNumbers, type Signal, signals } from '../otlp/signal.ts'
import { copyIn } from '../postgres/copy.ts'
import { answerOf, type Sql } from '../postgres/pool.ts'
import { inlineStatement, statement } from '../postgres/statement.ts'
import type { Batch, BatchId, Lease } from './batch.ts'
import type { DeadLetterReason } from './dead-letters.ts'
import { copyTraceEntriesText, encodeTraceEntries } from './trace-entries.ts'

/** One object as the catalog is to name it. */
export interface CatalogEntry {
  tenant: string
  signal: Signal
  encoding: Encoding
  bucket: string
  key: string
  checksum: string
  requests: number
  items: number
  bytes: number
  minTimeUnixNano: bigint | undefined
  maxTimeUnixNano: bigint | undefined
  services: readonly string[]
  queueIds: readonly bigint[]
  offsets: readonly number[]
  /** Of each request, the traces of which it may hold spans. */
  traceHashes: readonly BigInt64Array[]
}

/**
 * What became of a settle. `forgotten`: its fence matched nothing, so the batch is another worker's or was settled
 * before; the caller drops it and touches nothing.
 */
export type Settled = 'settled' | 'forgotten'

type RowsFound = { rows: number }
const complete = inlineStatement('queue/complete_batch')
const fail = statement<RowsFound>('queue/fail_batch')
const split = statement<RowsFound>('queue/split_batch')
const release = statement<RowsFound>('queue/release_batch')
const bury = statement<RowsFound>('queue/bury_batch')
const absolve = statement<never>('queue/absolve_batch')
const find = statement<{ settled: boolean }>('queue/find_settled')

/** Raised where the fence of a settle matches nothing that was said together with other statements. */
const LEASE_LOST = 'SL002'
/** Text columns refuse U+0000 and errors can be long. */
const ERROR_CHARACTERS_MAX = 256

/**
 * Stores: the rows leave the queue, and their objects and traces enter the catalog, in one transaction and one round trip.
 *
 * @throws Failure; `bug` with code SL001 when the batch does not hold the rows that were written.
 */
export async function completeBatch(
  sql: Sql,
  batch: Batch,
  entries: readonly CatalogEntry[],
): Promise<Settled> {
  const msecs = uuidV7Milliseconds(batch.batchId)
  // Object ids begin with the time of their batch: trace_index is partitioned by it.
  const objectIds = entries.map(() => uuidv7({ msecs }))
  const traces = entries.map(({ traceHashes }, index) => ({ objectId: objectIds[index] ?? '', traceHashes }))
  const records = entries.map((entry, index) => ({
    object_id: objectIds[index],
    min_time: timestamp(entry.minTimeUnixNano),
    max_time: timestamp(entry.maxTimeUnixNano),
    items: entry.items,
    bytes: entry.bytes,
    requests: entry.requests,
    signal: signals[entry.signal].number,
    encoding: encodingNumbers[entry.encoding],
    tenant: entry.tenant,
    bucket: entry.bucket,
    key: entry.key,
    checksum: entry.checksum,
    services: entry.services,
    queue_ids: entry.queueIds.map(String),
    offsets: entry.offsets,
  }))
  const text = complete([batch.batchId, batch.leaseToken, batch.rows.length, JSON.stringify(records)])
  try {
    const pieces = encodeTraceEntries(traces)
    return outcome(await answerOf(sql, copyIn<RowsFound>(sql, `${copyTraceEntriesText};\n${text}`, pieces)))
  } catch (thrown) {
    if (asFailure(thrown).code === LEASE_LOST) return 'forgotten'
    throw thrown
  }
}

export interface FailOptions {
  countAttempt: boolean
  countOutage: boolean
  delayMs: number
  error: string
}

/** Gives the batch back as `failed`, due again after `delayMs`. It stays the same set of rows. */
export async function failBatch(sql: Sql, lease: Lease, options: FailOptions): Promise<Settled> {
  return outcome(
    await fail(sql, [
      lease.batchId,
      lease.leaseToken,
      options.countAttempt ? 1 : 0,
      options.countOutage ? 1 : 0,
      options.delayMs,
      errorText(options.error),
    ]),
  )
}

/** Makes two batches of one, due at once. `keys` are what the batch may have put; the sweeper looks after them. */
export async function splitBatch(
  sql: Sql,
  batch: Batch,
  keys: readonly string[],
  error: string,
): Promise<Settled> {
  return outcome(
    await split(sql, [
      batch.batchId,
      batch.leaseToken,
      batch.rows.length,
      uuidv7(),
      uuidv7(),
      textArrayLiteral(keys),
      errorText(error),
    ]),
  )
}

/** Gives the rows back as pending, as if they had never been claimed. */
export async function releaseBatch(sql: Sql, batch: Batch, keys: readonly string[]): Promise<Settled> {
  return outcome(
    await release(sql, [batch.batchId, batch.leaseToken, batch.rows.length, textArrayLiteral(keys)]),
  )
}

export interface BuryOptions {
  reason: DeadLetterReason
  countAttempt: boolean
  error: string
}

/** Moves the rows to `dead_letter`. */
export async function buryBatch(
  sql: Sql,
  batch: Batch,
  keys: readonly string[],
  options: BuryOptions,
): Promise<Settled> {
  return outcome(
    await bury(sql, [
      batch.batchId,
      batch.leaseToken,
      batch.rows.length,
      textArrayLiteral(keys),
      options.reason,
      options.countAttempt ? 1 : 0,
      errorText(options.error),
    ]),
  )
}

/** Takes one vanished holder off the count: said by a holder that lost its lease and is alive. */
export async function absolveBatch(sql: Sql, batchId: BatchId): Promise<void> {
  await absolve(sql, [batchId])
}

/**
 * Asked after a settle that matched nothing: true when the catalog or a dead letter names the batch. False once its
 * dead letter was replayed or discarded: then too there is nothing left of the batch for anybody to do.
 */
export async function findSettled(sql: Sql, batchId: BatchId): Promise<boolean> {
  const [found] = await find(sql, [batchId])
  return found?.settled === true
}

function outcome(rows: readonly RowsFound[]): Settled {
  return rows.length === 1 ? 'settled' : 'forgotten'
}

/** PostgreSQL keeps microseconds; what lies below is cut off. */
function timestamp(unixNano: bigint | undefined): string | null {
  if (unixNano === undefined) return null
  const microseconds = unixNano / 1000n
  const seconds = new Date(Number(microseconds / 1000n)).toISOString().slice(0, 19)
  return `${seconds}.${String(microseconds % 1_000_000n).padStart(6, '0')}Z`
}

function errorText(error: string): string {
  return error.replaceAll('\0', '\ufffd').slice(0, ERROR_CHARACTERS_MAX)
}

function textArrayLiteral(values: readonly string[]): string {
  return `{${values.map((value) => `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`).join(',')}}`
}
