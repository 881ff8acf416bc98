import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'

/** `rows` never passes the limit that was asked for. */
export interface Pending {
  rows: number
  /** How long the oldest of them has waited, by the database's clock; 0 when there is none. */
  oldestMs: number
}

const count = statement<{ rows: number; oldest_ms: number }>('queue/count_pending')

/** How many of the first `limit` pending rows there are, of those with the id `from` and later. Takes no lock. */
export async function countPending(sql: Sql, limit: number, from = 0n): Promise<Pending> {
  const [found] = await count(sql, [limit, from])
  return { rows: found?.rows ?? 0, oldestMs: found?.oldest_ms ?? 0 }
}
