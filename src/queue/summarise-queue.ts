import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'

export interface QueueSummary {
  status: 'pending' | 'processing' | 'failed' | 'dead'
  rows: number
  items: number
  bytes: number
  /** Age of the oldest, by the database's clock; null when there is none. */
  oldestSeconds: number | null
}

type SummaryRecord = Omit<QueueSummary, 'oldestSeconds'> & { oldest_seconds: number }
const summarise = statement<SummaryRecord>('queue/summarise_queue')

/** What waits, a line for each status. Reads the whole queue: for people, not for the way of a request. */
export async function summariseQueue(sql: Sql): Promise<QueueSummary[]> {
  const found = new Map((await summarise(sql)).map((row) => [row.status, row]))
  return (['pending', 'processing', 'failed', 'dead'] as const).map((status) => {
    const row = found.get(status)
    return {
      status,
      rows: row?.rows ?? 0,
      items: row?.items ?? 0,
      bytes: row?.bytes ?? 0,
      oldestSeconds: row?.oldest_seconds ?? null,
    }
  })
}
