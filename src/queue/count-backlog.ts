import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'

export interface Backlog {
  rows: number
  bytes: number
}

const count = statement<Backlog>('queue/count_backlog')

/** Rows and bytes that wait, counted up to `limit` pending rows: nobody needs to know by how much a limit is passed. */
export async function countBacklog(sql: Sql, limit: number): Promise<Backlog> {
  const [found] = await count(sql, [limit])
  return found ?? { rows: 0, bytes: 0 }
}
