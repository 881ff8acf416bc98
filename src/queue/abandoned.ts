import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'
import type { BatchId } from './batch.ts'

/** A batch that no longer exists, with the keys it may have put and that no catalog row names. */
export interface AbandonedBatch {
  batchId: BatchId
  secondLook: boolean
  keys: readonly string[]
}

type AbandonedRecord = { batch_id: BatchId; second_look: boolean; keys: string[] }
const find = statement<AbandonedRecord>('queue/find_abandoned')
const mark = statement<never>('queue/mark_swept')
const forget = statement<never>('queue/forget_abandoned')

/** At most `limit` batches abandoned, or looked at, at least `ageSeconds` ago. */
export async function findAbandoned(sql: Sql, ageSeconds: number, limit: number): Promise<AbandonedBatch[]> {
  const found = await find(sql, [ageSeconds, limit])
  return found.map((row) => ({ batchId: row.batch_id, secondLook: row.second_look, keys: row.keys }))
}

/** After the first look. */
export async function markSwept(sql: Sql, batchId: BatchId): Promise<void> {
  await mark(sql, [batchId])
}

/** After the second look. */
export async function forgetAbandoned(sql: Sql, batchId: BatchId): Promise<void> {
  await forget(sql, [batchId])
}
