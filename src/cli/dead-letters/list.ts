import type { Sql } from '../../postgres/pool.ts'
import { countDeadLetters, type DeadLetterFilter, listDeadLetters } from '../../queue/dead-letters.ts'
import { readableBytes, readableCount, table } from '../table.ts'
import { ID_MAX, letterJson, noneFits } from './letter.ts'

const ERROR_CHARACTERS_MAX = 70

/** The dead letters that fit, the request that came last first, as a table or as JSON. */
export async function listCommand(
  sql: Sql,
  filter: DeadLetterFilter,
  { limit, before = ID_MAX, json }: { limit: number; before?: bigint; json: boolean },
): Promise<string> {
  const letters = await listDeadLetters(sql, filter, { before, limit })
  if (json) return `${JSON.stringify(letters.map(letterJson))}\n`
  if (letters.length === 0) return noneFits
  const rows = letters.map((letter) => ({
    id: String(letter.id),
    died: `${letter.diedAt.toISOString().slice(0, 19)}Z`,
    signal: letter.signal,
    tenant: letter.tenant,
    items: letter.items,
    bytes: readableBytes(letter.bytes),
    reason: letter.reason,
    tries: letter.attempts,
    error: shortened(letter.lastError ?? '-'),
  }))
  if (letters.length < limit) return table(rows)
  const { rows: total } = await countDeadLetters(sql, filter)
  const last = letters.at(-1)?.id ?? 0n
  return `${table(rows)}\n${readableCount(letters.length)} of ${readableCount(total)} shown; --before ${last} shows those before.\n`
}

function shortened(text: string): string {
  const line = text.replaceAll(/\s+/g, ' ')
  return line.length > ERROR_CHARACTERS_MAX ? `${line.slice(0, ERROR_CHARACTERS_MAX - 1)}…` : line
}
