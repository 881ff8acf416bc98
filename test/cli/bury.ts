import type { Sql } from '../../src/postgres/pool.ts'
import { claimBatch } from '../../src/queue/claim-batch.ts'
import { buryBatch } from '../../src/queue/settle.ts'

const bounds = { owner: 'test', leaseSeconds: 60, rowsMax: 1, bytesMax: 1, firstAnySize: true }

/** Buries everything that is pending, each in a batch of its own, as the relay does. */
export async function buryAll(sql: Sql, error: string): Promise<void> {
  for (let batch = await claimBatch(sql, bounds); batch; batch = await claimBatch(sql, bounds)) {
    await buryBatch(sql, batch, [], { reason: 'data_refused', countAttempt: true, error })
  }
}
