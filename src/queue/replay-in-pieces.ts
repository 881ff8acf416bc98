import type { Sql } from '../postgres/pool.ts'
import { type Backlog, countBacklog } from './count-backlog.ts'
import { type DeadLetterFilter, type Moved, replayDeadLetters } from './dead-letters.ts'

const PIECE_ROWS_MAX = 100
const PIECE_BYTES_MAX = 8 * 1024 * 1024

export interface ReplayOptions {
  /** Only letters with ids after this one. */
  after: bigint
  /** Only letters with ids up to this one, so that it ends even while new ones come. */
  last: bigint
  /** What makes the queue full. Replaying fills half of it, and leaves the rest to those who send. */
  backlogMax: Backlog
}

/** What one piece moved. A step without room moved nothing: whoever goes on at once asks again at once. */
export interface ReplayStep extends Moved {
  hasRoom: boolean
}

/**
 * Replays all that fit, a piece at a time, in the order of their ids; each piece is whole or not at all. A letter that
 * dies again meanwhile is not met a second time.
 */
export async function* replayInPieces(
  sql: Sql,
  filter: DeadLetterFilter,
  { after, last, backlogMax }: ReplayOptions,
): AsyncGenerator<ReplayStep, void> {
  const rowsMax = Math.ceil(backlogMax.rows / 2)
  for (let next = after; next < last; ) {
    const waiting = await countBacklog(sql, rowsMax)
    if (waiting.rows >= rowsMax || waiting.bytes >= backlogMax.bytes / 2) {
      yield { rows: 0, bytes: 0, lastId: null, hasRoom: false }
      continue
    }
    const moved = await replayDeadLetters(sql, filter, {
      after: next,
      last,
      rowsMax: Math.min(PIECE_ROWS_MAX, rowsMax - waiting.rows),
      bytesMax: PIECE_BYTES_MAX,
    })
    if (moved.lastId === null) return
    next = moved.lastId
    yield { ...moved, hasRoom: true }
  }
}
