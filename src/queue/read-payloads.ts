import { asFailure, Failure, invariant } from '../foundation/failure.ts'
import { allocateLarge, freeMemory } from '../foundation/memory.ts'
import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'
import { type Lease, type QueuedRow, type QueueRecord, queuedRow } from './batch.ts'
import { absolveBatch, failBatch } from './settle.ts'

/**
 * The largest payload that comes along with its row. The driver reads each as text and makes of it seven times as many bytes on
 * the way; so larger ones are read in pieces, one after the other, between which memory can be given back.
 */
export const PAYLOAD_ALONG_BYTES_MAX = 256 * 1024
const PIECE_BYTES = 1024 ** 2
/** Until a batch is due again whose payloads could not be read. */
const AGAIN_MS = 1_000

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
 * The rows of a batch that was just claimed or taken over, with the payloads that were too large to come along. A batch whose
 * payloads cannot be read is given back: its holder is alive, and must not be counted as one that vanished.
 *
 * @throws Failure `outage` also when a row has gone: the lease ran out meanwhile, and somebody else settled the batch.
 */
export async function readPayloads(
  sql: Sql,
  lease: Lease,
  records: readonly QueueRecord[],
): Promise<QueuedRow[]> {
  try {
    const rows: QueuedRow[] = []
    for (const record of records) {
      rows.push(queuedRow(record, record.payload ?? (await readPayload(sql, record))))
    }
    return rows
  } catch (thrown) {
    const failure = asFailure(thrown)
    await giveBack(sql, lease, failure).catch((error) => {
      // Nothing is lost: the lease runs out, and whoever takes the batch over counts one vanished holder.
      failure.cause ??= error
    })
    throw failure
  }
}

async function giveBack(sql: Sql, lease: Lease, { message, kind }: Failure): Promise<void> {
  const options = {
    countAttempt: kind === 'bug',
    countOutage: kind !== 'bug',
    delayMs: AGAIN_MS,
    error: message,
  }
  if ((await failBatch(sql, lease, options)) === 'forgotten') await absolveBatch(sql, lease.batchId)
}

async function readPayload(sql: Sql, { id, bytes }: QueueRecord): Promise<Buffer> {
  const payload = allocateLarge(bytes)
  for (let at = 0; at < bytes; ) {
    const piece = await readPayloadPiece(sql, id, at, PIECE_BYTES)
    if (piece === undefined) throw new Failure('outage', `request ${id} was settled while it was read`)
    invariant(piece.length > 0, `request ${id} says ${bytes} bytes and has ${at}`)
    at += piece.copy(payload, at)
    freeMemory(piece)
  }
  return payload
}
