import { InvalidArgumentError } from 'commander'
import { ID_MAX } from './dead-letters/letter.ts'

/** A time as commander parses it: anything that `Date` reads. */
export function parseTime(text: string): Date {
  const time = new Date(text)
  if (Number.isNaN(time.getTime()))
    throw new InvalidArgumentError('It must be a time like 2026-01-31T12:00:00Z.')
  return time
}

/** A count of at least one. */
export function parseCount(text: string): number {
  if (!/^[1-9]\d{0,6}$/.test(text))
    throw new InvalidArgumentError('It must be a whole number from 1 to 9999999.')
  return Number(text)
}

/** An id of the queue, as a command shows it. */
export function parseId(text: string): bigint {
  const id = /^[1-9]\d{0,18}$/.test(text) ? BigInt(text) : 0n
  if (id < 1n || id > ID_MAX) throw new InvalidArgumentError(`It must be a whole number from 1 to ${ID_MAX}.`)
  return id
}
