import { randomUUID } from 'node:crypto'

const usable = /^[\x20-\x7e]{1,128}$/

/**
 * The id of a request in logs, in the queue and in its answer: the sender's own if it is 1 to 128 printable ASCII
 * characters, else a new one. It is never unique, since senders repeat theirs.
 */
export function requestIdOf(header: string | string[] | undefined): string {
  return typeof header === 'string' && usable.test(header) ? header : randomUUID()
}
