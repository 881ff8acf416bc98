import type { Clock } from '../../foundation/clock.ts'
import { asFailure, Failure } from '../../foundation/failure.ts'
import type { Sql } from '../../postgres/pool.ts'
import type { Backlog } from '../../queue/count-backlog.ts'
import {
  countDeadLetters,
  type DeadLetterCount,
  type DeadLetterFilter,
  discardDeadLetters,
} from '../../queue/dead-letters.ts'
import { replayInPieces } from '../../queue/replay-in-pieces.ts'
import type { Progress } from '../progress.ts'
import { readableCount } from '../table.ts'
import { countedLetters, noneFits } from './letter.ts'
import type { ChangeOptions, DiscardOptions } from './program.ts'

const NO_ROOM_WAIT_MS = 500
const DISCARD_ROWS_MAX = 1_000

/** What a command that changes dead letters works with. */
export interface Moving {
  sql: Sql
  clock: Clock
  progress: Progress
}

/** How many dead letters fit, and what came of them, as a sentence or as JSON. */
export interface Changed {
  found: number
  text: string
}

/** Puts those that fit back into the queue, and says how many. */
export async function replayCommand(
  { sql, clock, progress }: Moving,
  filter: DeadLetterFilter,
  { dryRun, json, backlogMax }: ChangeOptions & { backlogMax: Backlog },
): Promise<Changed> {
  const found = await countDeadLetters(sql, filter)
  if (dryRun) return wouldChange('replay', found, json)
  const done = { rows: 0, bytes: 0 }
  await goOn('replayed', done, progress, async () => {
    for await (const step of replayInPieces(sql, filter, { after: 0n, last: found.lastId, backlogMax })) {
      done.rows += step.rows
      done.bytes += step.bytes
      const soFar = `${readableCount(done.rows)} of ${readableCount(found.rows)} replayed`
      progress.say(step.hasRoom ? soFar : `${soFar}; the queue is half full: waiting for the workers`)
      if (!step.hasRoom) await clock.sleep(NO_ROOM_WAIT_MS)
    }
  })
  return changed('replayed', found, done, json)
}

/** Deletes those that fit, and says how many; without `yes` it only says what it would do. */
export async function discardCommand(
  { sql, progress }: Moving,
  filter: DeadLetterFilter,
  { dryRun, all, yes, json }: DiscardOptions,
): Promise<Changed> {
  if (!all && Object.values(filter).every((value) => value === undefined)) {
    throw new Failure('client', 'Say which to delete: ids, a filter, or --all for every one of them.')
  }
  const found = await countDeadLetters(sql, filter)
  if (dryRun) return wouldChange('discard', found, json)
  if (found.rows > 0 && !yes) {
    throw new Failure(
      'client',
      `This would delete ${countedLetters(found)} for ever; nothing is deleted without --yes. ` +
        'sluice dead-letters export keeps a copy.',
    )
  }
  const done = { rows: 0, bytes: 0 }
  await goOn('discarded', done, progress, async () => {
    for (let after: bigint | null = 0n; after !== null && after < found.lastId; ) {
      const piece = { after, last: found.lastId, rowsMax: DISCARD_ROWS_MAX }
      const moved = await discardDeadLetters(sql, filter, piece)
      done.rows += moved.rows
      done.bytes += moved.bytes
      after = moved.lastId
      progress.say(`${readableCount(done.rows)} of ${readableCount(found.rows)} discarded`)
    }
  })
  return changed('discarded', found, done, json)
}

/** What is done stays done when the rest fails, and whoever reads the error wants to know. */
async function goOn(
  what: string,
  done: { rows: number },
  progress: Progress,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work()
  } catch (thrown) {
    const failure = asFailure(thrown)
    if (failure.kind === 'bug') throw thrown
    const sentence = `${failure.message}. At least ${readableCount(done.rows)} were ${what} before that; run it again for the rest.`
    throw new Failure(failure.kind, sentence, { cause: failure })
  } finally {
    progress.end()
  }
}

function wouldChange(verb: string, found: DeadLetterCount, json: boolean): Changed {
  const { rows, items, bytes } = found
  if (json) return { found: rows, text: `${JSON.stringify({ dryRun: true, found: rows, items, bytes })}\n` }
  const text = rows === 0 ? noneFits : `This would ${verb} ${countedLetters(found)}.\n`
  return { found: rows, text }
}

function changed(
  what: 'replayed' | 'discarded',
  found: DeadLetterCount,
  done: { rows: number; bytes: number },
  json: boolean,
): Changed {
  if (json) {
    const text = `${JSON.stringify({ dryRun: false, found: found.rows, [what]: done.rows, bytes: done.bytes })}\n`
    return { found: found.rows, text }
  }
  if (found.rows === 0) return { found: 0, text: noneFits }
  const missed = found.rows - done.rows
  const others =
    missed > 0 ? ` Somebody else has replayed or discarded ${readableCount(missed)} meanwhile.` : ''
  const text = `${countedLetters(done)} ${what}.${others}\n`
  return { found: found.rows, text }
}
