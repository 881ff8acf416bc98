import { decodeSummary } from '../../../src/otlp/summary.ts'
import type { Sql } from '../../../src/postgres/pool.ts'
import type { Batch, BatchId } from '../../../src/queue/batch.ts'
import {
  absolveBatch,
  type BuryOptions,
  buryBatch,
  completeBatch,
  type FailOptions,
  failBatch,
  findSettled,
  releaseBatch,
  type Settled,
  splitBatch,
} from '../../../src/queue/settle.ts'
import { type BatchObject, objectKeysOfBatch, objectsOfBatch } from '../../../src/sink/object.ts'
import type { Step } from '../states.ts'
import { agree } from './disagreement.ts'
import type { Hand, Model, ModelBatch } from './model.ts'
import { type Plan, type Planner, pick } from './steps.ts'

/** Who acts: somebody who still has the right to a batch, or somebody who has lost it and does not know. */
export type Who = 'holder' | 'late'

/** How a worker may end a batch. */
export type Ending =
  | { how: 'complete' }
  | { how: 'fail'; options: FailOptions }
  | { how: 'split'; error: string }
  | { how: 'release' }
  | { how: 'bury'; options: BuryOptions }

/** The same act in the database and in the model. */
interface Settle {
  by: Step
  words: string
  say: (sql: Sql) => Promise<Settled>
  settle: (batch: ModelBatch, sql: Sql) => Promise<void> | void
}

export function end(ending: Ending, who: Who, number: number): Planner {
  return (model) => {
    const hand = handOf(model, who, number)
    if (hand === undefined || (ending.how === 'complete' && isSwept(model, hand.batch.batchId)))
      return undefined
    return settlePlan(model, hand, settleOf(model, hand.batch, ending))
  }
}

function settlePlan(model: Model, hand: Hand, { by, words, say, settle }: Settle): Plan {
  const { batchId } = hand.batch
  const holds = model.holds(hand)
  const known = model.batches.get(batchId)
  return {
    words: `${hand.worker}${holds ? '' : ', by a lease that is void,'} ${words}`,
    by: holds ? by : undefined,
    act: async ({ sql }) => {
      const outcome = await say(sql)
      agree('the answer', outcome, holds ? 'settled' : 'forgotten')
      if (holds && known !== undefined) {
        await settle(known, sql)
        return ''
      }
      const isSettled = model.isSettled(batchId)
      agree(`${model.nameOf(batchId)} is settled`, await findSettled(sql, batchId), isSettled)
      return 'nothing happens'
    },
  }
}

function settleOf(model: Model, batch: Batch, ending: Ending): Settle {
  const name = model.nameOf(batch.batchId)
  const keys = objectKeysOfBatch(batch.batchId, batch.rows)
  switch (ending.how) {
    case 'complete': {
      const objects = objectsOf(batch)
      return {
        by: 'complete',
        words: `puts and completes ${name}`,
        say: (sql) => {
          for (const { key } of objects) model.store.add(key)
          return completeBatch(
            sql,
            batch,
            objects.map((object) => ({ ...object, bucket: 'telemetry' })),
          )
        },
        settle: (known) => model.complete(known, objects),
      }
    }
    case 'fail': {
      const { options } = ending
      const counted = [options.countAttempt ? 'an attempt' : '', options.countOutage ? 'an outage' : '']
      const count = counted.filter((part) => part !== '').join(' and ') || 'nothing'
      return {
        by: options.delayMs === 0 ? 'give back' : 'fail',
        words: `fails ${name} with "${options.error}", counting ${count}, ${options.delayMs === 0 ? 'due at once' : 'due later'}`,
        say: (sql) => failBatch(sql, batch, options),
        settle: (known) => model.fail(known, options),
      }
    }
    case 'split':
      return {
        by: 'split',
        words: `splits ${name} for "${ending.error}"`,
        say: (sql) => splitBatch(sql, batch, keys, ending.error),
        settle: async (known, sql) => model.split(known, await halvesOf(known, sql), keys, ending.error),
      }
    case 'release':
      return {
        by: 'release',
        words: `releases ${name}`,
        say: (sql) => releaseBatch(sql, batch, keys),
        settle: (known) => model.release(known, keys),
      }
    case 'bury': {
      const { options } = ending
      return {
        by: 'bury',
        words: `buries ${name} as ${options.reason} with "${options.error}"`,
        say: (sql) => buryBatch(sql, batch, keys, options),
        settle: (known) => model.bury(known, keys, options),
      }
    }
  }
}

/** The ids that the database gave the halves, in the order of their first rows. */
async function halvesOf(batch: ModelBatch, sql: Sql): Promise<BatchId[]> {
  const ids = batch.requests.map(({ id }) => id)
  const found = await sql<{ batchId: BatchId }[]>`
    SELECT batch_id AS "batchId" FROM ingestion_queue
    WHERE id BETWEEN ${ids[0] ?? 0n} AND ${ids.at(-1) ?? 0n} AND batch_id IS NOT NULL AND batch_id <> ${batch.id}
      AND id::text IN (SELECT jsonb_array_elements_text(${sql.json(ids.map(String))}))
    GROUP BY batch_id ORDER BY min(id)`
  return found.map(({ batchId }) => batchId)
}

/** A worker that lost its batch says that it is alive. */
export function absolve(number: number): Planner {
  return (model) => {
    const hand = handOf(model, 'late', number)
    if (hand === undefined) return undefined
    const { batchId } = hand.batch
    return {
      words: `${hand.worker}, which lost ${model.nameOf(batchId)}, says that it is alive`,
      by: undefined,
      act: async ({ sql }) => {
        await absolveBatch(sql, batchId)
        const batch = model.batches.get(batchId)
        if (batch !== undefined && batch.takeovers > 0) batch.takeovers--
        return ''
      },
    }
  }
}

/** A worker puts some of its objects and gets no further. Puts are over before the sweeper looks a second time. */
export function put(who: Who, number: number, objectsMax: number): Planner {
  return (model) => {
    const hand = handOf(model, who, number)
    if (hand === undefined || isSwept(model, hand.batch.batchId)) return undefined
    const objects = objectsOf(hand.batch).slice(0, objectsMax)
    const name = model.nameOf(hand.batch.batchId)
    return {
      words: `${hand.worker} puts ${objects.length === 1 ? 'an object' : `${objects.length} objects`} of ${name}`,
      by: undefined,
      act: async () => {
        for (const { key } of objects) model.store.add(key)
        return ''
      },
    }
  }
}

function handOf(model: Model, who: Who, number: number): Hand | undefined {
  const hands = model.hands.filter((hand) => model.holds(hand) === (who === 'holder'))
  return pick(hands, number)
}

/** No put of the batch can be on its way any more: two deadlines have passed. */
function isSwept(model: Model, batchId: BatchId): boolean {
  const isKnown =
    model.batches.has(batchId) ||
    model.abandoned.some((one) => one.batchId === batchId) ||
    [...model.catalog.values()].some((object) => object.batchId === batchId)
  return !isKnown
}

/** What a worker puts for the batch. */
export function objectsOf(batch: Batch): BatchObject[] {
  return objectsOfBatch(
    batch.batchId,
    batch.rows.map((row) => ({ ...row, summary: decodeSummary(row.summary) })),
  )
}
