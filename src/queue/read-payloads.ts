import { Failure, invariant } from '../foundation/failure.ts'
import { allocateLarge } from '../foundation/memory.ts'
import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'
import { type QueuedRow, type QueueRecord, queuedRow } from './batch.ts'

/**
 * The largest payload that comes along with its row. The driver reads each as text and makes of it seven times as many bytes on
 * the way; so a larger one is read in pieces of this size, between which memory can be given back.
 */
export const PAYLOAD_ALONG_BYTES_MAX = 1024 ** 2

const readPiece = statement<{ piece: Buffer }>('queue/read_payload_piece')

/** At most so many bytes of a payload from a place on, counted from 0; undefined when the request is not in the queue. */
export async function readPayloadPiece(
  sql: Sql,
  id: bigint,
  at: number,
  bytesMax: number,
): Promise<Buffer | undefined> {
  const [row] = await readPiece(sql, [id, at + 1, bytesMax])
  return row?.piece
}

/**
 * The rows of a batch that was just claimed, with the payloads that were too large to come along.
 *
 * @throws Failure `outage` when a row has gone: the lease ran out meanwhile, and somebody else settled the batch.
 */
export async function readPayloads(sql: Sql, records: readonly QueueRecord[]): Promise<QueuedRow[]> {
  const rows: QueuedRow[] = []
  for (const record of records) {
    rows.push(queuedRow(record, record.payload ?? (await readPayload(sql, record))))
  }
  return rows
}

async function readPayload(sql: Sql, { id, bytes }: QueueRecord): Promise<Buffer> {
  const payload = allocateLarge(bytes)
  for (let at = 0; at < bytes; ) {
    const piece = await readPayloadPiece(sql, id, at, PAYLOAD_ALONG_BYTES_MAX)
    if (piece === undefined) throw new Failure('outage', `request ${id} was settled while it was read`)
    invariant(piece.length > 0, `request ${id} says ${bytes} bytes and has ${at}`)
    at += piece.copy(payload, at)
  }
  return payload
}
