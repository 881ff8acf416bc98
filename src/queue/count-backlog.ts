import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'

/** What waits in the queue. */
export interface Backlog {
  rows: number
  bytes: number
}

/** `costMs` is the server's time: ours says more about this process than about the count. */
export interface CountedBacklog extends Backlog {
  costMs: number
}

const count = statement<Backlog & { cost_ms: number }>('queue/count_backlog')

/** Rows and bytes that wait, counted up to `limit` pending rows: nobody needs to know by how much a limit is passed. */
export async function countBacklog(sql: Sql, limit: number): Promise<CountedBacklog> {
  const [found] = await count(sql, [limit])
  return { rows: found?.rows ?? 0, bytes: found?.bytes ?? 0, costMs: found?.cost_ms ?? 0 }
}
