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
const may = statement<{ is_locked: boolean; is_left_over: boolean }>('queue/may_sweep')
const mark = statement<never>('queue/mark_swept')
const forget = statement<never>('queue/forget_abandoned')
const lock = statement<{ is_locked: boolean }>('queue/lock_sweeping')
const unlock = statement<never>('queue/unlock_sweeping')

/** Before every batch id. */
export const FIRST_BATCH_ID = '00000000-0000-0000-0000-000000000000' as BatchId

/** What a sweeper needs of the database. */
export interface SweepQueue {
  lock(): Promise<boolean>
  unlock(): Promise<void>
  /** At most `limit` batches with ids after `after`, abandoned, or looked at, at least `ageSeconds` ago. */
  find(ageSeconds: number, limit: number, after: BatchId): Promise<AbandonedBatch[]>
  /** Asked right before each deletion. */
  maySweep(batchId: BatchId, key: string): Promise<boolean>
  /** After the first look. */
  markSwept(batchId: BatchId): Promise<void>
  /** After the second look. */
  forget(batchId: BatchId): Promise<void>
}

/** @param sql a pool of one connection that nobody else uses: its session holds the lock. */
export function sweepQueue(sql: Sql): SweepQueue {
  return {
    lock: () => lockSweeping(sql),
    unlock: () => unlockSweeping(sql),
    find: (ageSeconds, limit, after) => findAbandoned(sql, ageSeconds, limit, after),
    maySweep: (batchId, key) => maySweep(sql, batchId, key),
    markSwept: (batchId) => markSwept(sql, batchId),
    forget: (batchId) => forgetAbandoned(sql, batchId),
  }
}

export async function findAbandoned(
  sql: Sql,
  ageSeconds: number,
  limit: number,
  after: BatchId = FIRST_BATCH_ID,
): Promise<AbandonedBatch[]> {
  const found = await find(sql, [ageSeconds, limit, after])
  return found.map((row) => ({ batchId: row.batch_id, secondLook: row.second_look, keys: row.keys }))
}

export async function maySweep(sql: Sql, batchId: BatchId, key: string): Promise<boolean> {
  const [row] = await may(sql, [batchId, key])
  return row?.is_locked === true && row.is_left_over
}

export async function markSwept(sql: Sql, batchId: BatchId): Promise<void> {
  await mark(sql, [batchId])
}

export async function forgetAbandoned(sql: Sql, batchId: BatchId): Promise<void> {
  await forget(sql, [batchId])
}

/** Whether the session of `sql` is the one that sweeps. The lock ends with its session: with its process, above all. */
export async function lockSweeping(sql: Sql): Promise<boolean> {
  const [row] = await lock(sql)
  return row?.is_locked === true
}

export async function unlockSweeping(sql: Sql): Promise<void> {
  await unlock(sql)
}
