import type { Clock } from '../foundation/clock.ts'
import type { Sql } from '../postgres/pool.ts'
import { statement } from '../postgres/statement.ts'
import { LowWaterMark } from './low-water-mark.ts'

/** What waits in the queue. */
export interface Backlog {
  rows: number
  bytes: number
}

/** `costMs` is the server's time: ours says more about this process than about the count. */
export interface CountedBacklog extends Backlog {
  costMs: number
}

interface BacklogFound extends CountedBacklog {
  /** No row with a lower id was pending, as far as was looked. */
  firstId: bigint
}

const count = statement<Backlog & { cost_ms: number; first_id: bigint }>('queue/count_backlog')

/** Of the time; while everything is looked at nothing is known of what came since, so that a full queue is feared. */
const WHOLE_COUNT_SHARE = 0.001

/**
 * Rows and bytes that wait, counted up to `limit` pending rows: nobody needs to know by how much a limit is passed. Rows with
 * ids below `from` are left out; none unless told.
 */
export async function countBacklog(sql: Sql, limit: number, from = 0n): Promise<BacklogFound> {
  const [found] = await count(sql, [limit, from])
  return {
    rows: found?.rows ?? 0,
    bytes: found?.bytes ?? 0,
    costMs: found?.cost_ms ?? 0,
    firstId: found?.first_id ?? 0n,
  }
}

/**
 * Counts again and again, from a low-water mark on, so that rows which are done with and cannot be cleaned up yet cost nothing.
 * What is given back below the mark is left out until everything is looked at.
 */
export function backlogCounter(sql: Sql, clock: Clock): (limit: number) => Promise<CountedBacklog> {
  const mark = new LowWaterMark(clock, WHOLE_COUNT_SHARE)
  return async (limit) => {
    const { firstId, ...counted } = await mark.look((from) => countBacklog(sql, limit, from))
    mark.passed(firstId)
    // The mark itself sees to it that everything is looked at seldom.
    return mark.from === 0n ? { ...counted, costMs: 0 } : counted
  }
}
