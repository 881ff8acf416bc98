import type { Sql } from '../postgres/pool.ts'
import { arrayLiteral, statement } from '../postgres/statement.ts'

const find = statement<{ batch_id: string }>('queue/find_in_flight')

/** Which of these batches may have objects that the catalog does not name: those at work, and those given up. */
export async function findInFlight(sql: Sql, batchIds: readonly string[]): Promise<ReadonlySet<string>> {
  const found = await find(sql, [arrayLiteral(batchIds)])
  return new Set(found.map(({ batch_id }) => batch_id))
}
