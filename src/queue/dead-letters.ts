import { type Encoding, encodingOfNumber, type Signal, signalOfNumber, signals } from '../otlp/signal.ts'
import type { Sql } from '../postgres/pool.ts'
import { arrayLiteral, type Parameter, statement } from '../postgres/statement.ts'

/** Why a request was set aside: it failed for its own data, or its workers vanished. */
export const deadLetterReasons = ['data_refused', 'worker_lost'] as const
export type DeadLetterReason = (typeof deadLetterReasons)[number]

/** A request that could not be stored for its own data, or whose workers vanished. `id` was its id in the queue. */
export interface DeadLetter {
  id: bigint
  batchId: string
  receivedAt: Date
  diedAt: Date
  signal: Signal
  encoding: Encoding
  tenant: string
  requestId: string
  items: number
  bytes: number
  unpackedBytes: number
  attempts: number
  reason: string
  firstError: string | null
  lastError: string | null
}

/** Which dead letters are meant; without a member, all of them. */
export interface DeadLetterFilter {
  ids?: readonly bigint[]
  reason?: string
  tenant?: string
  signal?: Signal
  /** Died at this time or later. */
  since?: Date
  /** Died before this time. */
  until?: Date
}

/** A piece of the dead letters, in the order of their ids: those after `after` and up to `last`. */
export interface Piece {
  after: bigint
  last: bigint
  rowsMax: number
}

/** A piece that is bounded by its bytes too; its first letter is always taken. */
export interface PieceOfBytes extends Piece {
  bytesMax: number
}

/** What was moved or deleted. The next piece begins after `lastId`; it is null when there was nothing left. */
export interface Moved {
  rows: number
  bytes: number
  lastId: bigint | null
}

export interface DeadLetterCount {
  rows: number
  items: number
  bytes: number
  /** The last id among them: 0 when there are none. */
  lastId: bigint
}

interface LetterRecord {
  id: bigint
  batch_id: string
  received_at: Date
  died_at: Date
  signal: number
  encoding: number
  tenant: string
  request_id: string
  items: number
  bytes: number
  unpacked_bytes: number
  attempts: number
  reason: string
  first_error: string | null
  last_error: string | null
}

type MovedRecord = { rows: number; bytes: number; last_id: bigint | null }
const count = statement<Omit<DeadLetterCount, 'lastId'> & { last_id: bigint }>('queue/count_dead_letters')
const list = statement<LetterRecord>('queue/list_dead_letters')
const read = statement<LetterRecord & { payload: Buffer }>('queue/read_dead_letters')
const replay = statement<MovedRecord>('queue/replay_dead_letters')
const discard = statement<MovedRecord>('queue/discard_dead_letters')

/** How many there are that fit, with ids after `after`. Reads them all without their payloads. */
export async function countDeadLetters(
  sql: Sql,
  filter: DeadLetterFilter,
  after = 0n,
): Promise<DeadLetterCount> {
  const [found] = await count(sql, [...parameters(filter), after])
  return {
    rows: found?.rows ?? 0,
    items: found?.items ?? 0,
    bytes: found?.bytes ?? 0,
    lastId: found?.last_id ?? 0n,
  }
}

/** At most `limit` that fit, with ids before `before`: the requests that came last first. */
export async function listDeadLetters(
  sql: Sql,
  filter: DeadLetterFilter,
  { before, limit }: { before: bigint; limit: number },
): Promise<DeadLetter[]> {
  return (await list(sql, [...parameters(filter), before, limit])).map(deadLetter)
}

/** A piece of those that fit, with their payloads as they were staged. */
export async function readDeadLetters(
  sql: Sql,
  filter: DeadLetterFilter,
  piece: PieceOfBytes,
): Promise<(DeadLetter & { payload: Buffer })[]> {
  const { after, last, rowsMax, bytesMax } = piece
  const found = await read(sql, [...parameters(filter), after, last, rowsMax, bytesMax])
  return found.map((row) => ({ ...deadLetter(row), payload: row.payload }))
}

/**
 * Moves a piece of those that fit back into the queue, in one statement: the same bytes under the same id, as if they
 * had been received when they were. Whoever else replays or discards at the same time, each letter is moved once or
 * deleted once; whenever this is cut short, each is in one of the two places.
 *
 * @throws Failure; `data` when the queue has a row of that id, and then nothing has moved.
 */
export async function replayDeadLetters(
  sql: Sql,
  filter: DeadLetterFilter,
  piece: PieceOfBytes,
): Promise<Moved> {
  const { after, last, rowsMax, bytesMax } = piece
  return moved(await replay(sql, [...parameters(filter), after, last, rowsMax, bytesMax]))
}

/** Deletes a piece of those that fit, for ever. */
export async function discardDeadLetters(sql: Sql, filter: DeadLetterFilter, piece: Piece): Promise<Moved> {
  const { after, last, rowsMax } = piece
  return moved(await discard(sql, [...parameters(filter), after, last, rowsMax]))
}

function parameters({ ids, reason, tenant, signal, since, until }: DeadLetterFilter): Parameter[] {
  return [
    ids === undefined ? null : arrayLiteral(ids),
    reason ?? null,
    tenant ?? null,
    signal === undefined ? null : signals[signal].number,
    since?.toISOString() ?? null,
    until?.toISOString() ?? null,
  ]
}

function moved([found]: readonly MovedRecord[]): Moved {
  return { rows: found?.rows ?? 0, bytes: found?.bytes ?? 0, lastId: found?.last_id ?? null }
}

function deadLetter(row: LetterRecord): DeadLetter {
  return {
    id: row.id,
    batchId: row.batch_id,
    receivedAt: row.received_at,
    diedAt: row.died_at,
    signal: signalOfNumber(row.signal),
    encoding: encodingOfNumber(row.encoding),
    tenant: row.tenant,
    requestId: row.request_id,
    items: row.items,
    bytes: row.bytes,
    unpackedBytes: row.unpacked_bytes,
    attempts: row.attempts,
    reason: row.reason,
    firstError: row.first_error,
    lastError: row.last_error,
  }
}
