import type { Sql } from '../postgres/pool.ts'
import { arrayLiteral, statement } from '../postgres/statement.ts'
import type { BatchId, Lease } from './batch.ts'

const renew = statement<{ batch_id: BatchId }>('queue/renew_leases')

/** Lengthens the leases to `leaseSeconds` from the database's present. Answers those still held. */
export async function renewLeases(
  sql: Sql,
  leases: readonly Lease[],
  leaseSeconds: number,
): Promise<Set<BatchId>> {
  const held = await renew(sql, [
    arrayLiteral(leases.map((lease) => lease.batchId)),
    arrayLiteral(leases.map((lease) => lease.leaseToken)),
    leaseSeconds,
  ])
  return new Set(held.map((row) => row.batch_id))
}
