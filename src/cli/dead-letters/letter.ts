import type { DeadLetter } from '../../queue/dead-letters.ts'
import { readableBytes, readableCount } from '../table.ts'

/** The largest number that PostgreSQL keeps in a `bigint`. */
export const ID_MAX = 2n ** 63n - 1n

/** What a command says when there is nothing to do. */
export const noneFits = 'No dead letter fits.\n'

/** A dead letter as it stands in JSON: its id as text, since it may have 19 digits. */
export function letterJson(letter: DeadLetter): Record<string, unknown> {
  return { ...letter, id: String(letter.id) }
}

/** What its payload is called as a file. */
export function fileName({ id, signal, encoding }: DeadLetter): string {
  return `${id}.${signal}.binpb${encoding === 'gzip' ? '.gz' : ''}`
}

/** 1 dead letter (85 B), 1,234 dead letters (1.5 MiB). */
export function countedLetters({ rows, bytes }: { rows: number; bytes: number }): string {
  return `${readableCount(rows)} dead letter${rows === 1 ? '' : 's'} (${readableBytes(bytes)})`
}
