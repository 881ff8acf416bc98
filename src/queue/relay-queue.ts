import type { Clock } from '../foundation/clock.ts'
import { uuidV7Milliseconds } from '../foundation/uuid-time.ts'
import { ensureTraceIndexPartition } from '../postgres/partitions.ts'
import type { Sql } from '../postgres/pool.ts'
import { isMissingPartition } from '../postgres/sqlstate.ts'
import type { Batch, BatchId, Lease } from './batch.ts'
import { claimBatch } from './claim-batch.ts'
import { countPending } from './count-pending.ts'
import { hasDueBatch } from './has-due-batch.ts'
import { LowWaterMark } from './low-water-mark.ts'
import { renewLeases } from './renew-leases.ts'
import {
  absolveBatch,
  type BuryOptions,
  buryBatch,
  type CatalogEntry,
  completeBatch,
  type FailOptions,
  failBatch,
  findSettled,
  releaseBatch,
  type Settled,
  splitBatch,
} from './settle.ts'
import { takeOverBatch } from './take-over-batch.ts'

export interface RelayQueueOptions {
  /** For looking, claiming and taking over; apart from `settles`, so that neither can starve the other. */
  claims: Sql
  /** For renewing and settling. */
  settles: Sql
  /** Who holds the leases, for people to see. */
  owner: string
  leaseSeconds: number
  clock: Clock
}

interface TakeOverBounds {
  rowsMax: number
  bytesMax: number
}

interface ClaimBounds extends TakeOverBounds {
  firstAnySize: boolean
}

/** The statements of the batch protocol on their pools: all that the relay knows of the queue. */
export function relayQueue({ claims, settles, owner, leaseSeconds, clock }: RelayQueueOptions) {
  const mark = new LowWaterMark(clock)
  return {
    countPending: (limit: number) => mark.look((from) => countPending(claims, limit, from)),
    claimBatch: async (bounds: ClaimBounds) => {
      const batch = await claimBatch(claims, { owner, leaseSeconds, from: mark.from, ...bounds })
      const [first] = batch?.rows ?? []
      if (first !== undefined) mark.passed(first.id)
      return batch
    },
    hasDueBatch: () => hasDueBatch(claims),
    takeOverBatch: (bounds: TakeOverBounds) => takeOverBatch(claims, { owner, leaseSeconds, ...bounds }),
    renewLeases: (leases: readonly Lease[]) => renewLeases(settles, leases, leaseSeconds),
    completeBatch: (batch: Batch, entries: readonly CatalogEntry[]) =>
      completeInPartition(settles, batch, entries),
    failBatch: (lease: Lease, options: FailOptions) => failBatch(settles, lease, options),
    splitBatch: (batch: Batch, keys: readonly string[], error: string) =>
      splitBatch(settles, batch, keys, error),
    releaseBatch: (batch: Batch, keys: readonly string[]) => releaseBatch(settles, batch, keys),
    buryBatch: (batch: Batch, keys: readonly string[], options: BuryOptions) =>
      buryBatch(settles, batch, keys, options),
    absolveBatch: (batchId: BatchId) => absolveBatch(settles, batchId),
    findSettled: (batchId: BatchId) => findSettled(settles, batchId),
  }
}

/** A missing partition of the trace index is made, and is no failure of the batch. */
async function completeInPartition(
  sql: Sql,
  batch: Batch,
  entries: readonly CatalogEntry[],
): Promise<Settled> {
  try {
    return await completeBatch(sql, batch, entries)
  } catch (thrown) {
    if (!isMissingPartition(thrown)) throw thrown
    await ensureTraceIndexPartition(sql, new Date(uuidV7Milliseconds(batch.batchId)))
    return await completeBatch(sql, batch, entries)
  }
}
