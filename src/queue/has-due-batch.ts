import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'

const ask = statement<{ due: boolean }>('queue/has_due_batch')

/** Whether any batch waits to be taken over, however large. */
export async function hasDueBatch(sql: Sql): Promise<boolean> {
  const [found] = await ask(sql)
  return found?.due === true
}
