import type { Sql } from '../postgres/pool.ts'
import { summariseQueue } from '../queue/summarise-queue.ts'
import { readableBytes, readableSeconds, table } from './table.ts'

export const queueHelp = `
Rows, items, bytes and the age of the oldest request, by status:
  pending     accepted, not yet claimed by a worker
  processing  claimed under a lease
  failed      to be retried
  dead        set aside in dead_letter

Examples:
  sluice queue
  sluice queue --json | jq '.[] | select(.status == "pending").rows'`

/** What waits, as a table or as JSON. */
export async function queueCommand(sql: Sql, options: { json: boolean }): Promise<string> {
  const summary = await summariseQueue(sql)
  if (options.json) return `${JSON.stringify(summary)}\n`
  return table(
    summary.map(({ status, rows, items, bytes, oldestSeconds }) => ({
      status,
      rows,
      items,
      bytes: readableBytes(bytes),
      oldest: oldestSeconds === null ? '-' : readableSeconds(oldestSeconds),
    })),
  )
}
