import { randomUUID } from 'node:crypto'
import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'
import type { Batch, BatchId, LeaseToken, QueueRecord } from './batch.ts'
import type { ClaimOptions } from './claim-batch.ts'
import { PAYLOAD_ALONG_BYTES_MAX, readPayloads } from './read-payloads.ts'

interface TakenRecord extends Omit<QueueRecord, 'id'> {
  id: bigint | null
  batch_id: BatchId
  rows: number
  attempts: number
  outages: number
  takeovers: number
  last_error: string | null
}

const take = statement<TakenRecord>('queue/take_over_batch')

/**
 * Takes one batch whose next attempt is due, or whose holder let its lease run out, under a new token. The batch
 * stays the same set of rows under the same id. Undefined when there is none that fits.
 */
export async function takeOverBatch(
  sql: Sql,
  options: Omit<ClaimOptions, 'firstAnySize'>,
): Promise<Batch | undefined> {
  const leaseToken = randomUUID() as LeaseToken
  const records = await take(sql, [
    leaseToken,
    options.owner,
    options.leaseSeconds,
    options.bytesMax,
    options.rowsMax,
    PAYLOAD_ALONG_BYTES_MAX,
  ])
  const [first] = records
  if (first === undefined) return undefined
  const found = records.filter((record): record is TakenRecord & QueueRecord => record.id !== null)
  const rows = await readPayloads(sql, { batchId: first.batch_id, leaseToken }, found)
  return {
    batchId: first.batch_id,
    leaseToken,
    rows,
    expectedRows: first.rows,
    bytes: rows.reduce((sum, row) => sum + row.bytes, 0),
    isFirstHold: false,
    attempts: first.attempts,
    outages: first.outages,
    takeovers: first.takeovers,
    lastError: first.last_error,
  }
}
