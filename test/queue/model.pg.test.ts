import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { coerceError } from '../../src/foundation/failure.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import type { Stager } from '../../src/queue/stage.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { counterexample } from './model/disagreement.ts'
import { drain } from './model/drain.ts'
import { Model } from './model/model.ts'
import { drainAlone, expectOnce, expectOneEnding } from './model/once.ts'
import { programs, sessionNames } from './model/random-sessions.ts'
import { commands } from './model/random-steps.ts'
import { emptyLedger, runAtOnce, type Session } from './model/sessions.ts'
import { arrows, Command, type Planner, type Stand } from './model/steps.ts'
import { everyArrow, everyLateAct, longHistory } from './model/walks.ts'
import { stagerOn } from './rows.ts'

/** Runs of each random test; without it as many as the time allows. */
const runsAsked = process.env.MODEL_RUNS === undefined ? undefined : Number(process.env.MODEL_RUNS)
const seed = process.env.MODEL_SEED === undefined ? {} : { seed: Number(process.env.MODEL_SEED) }
const RUNS_MIN = 5
const MODEL_MS_MAX = 15_000
const SESSIONS_MS_MAX = 10_000
const SHRINKING_MS_MAX = 60_000
/** Generous: it is there for runs that hang. */
const RUN_MS_MAX = 5_000
const timeout = MODEL_MS_MAX + SHRINKING_MS_MAX + (runsAsked ?? 1) * RUN_MS_MAX

let database: TestDatabase
let sql: Sql
let stager: Stager
let sessions: Session[]

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ name: 'model', connections: 1, planCacheMode: 'force_generic_plan' })
  sessions = sessionNames.map((name) => ({
    name,
    sql: database.open({ name, connections: 1, planCacheMode: 'force_generic_plan' }),
    hands: [],
  }))
  stager = stagerOn(database)
  await stager.start()
})
afterAll(async () => {
  await stager.stop()
  await Promise.all([sql, ...sessions.map((session) => session.sql)].map((pool) => closePool(pool, 1000)))
  await database.drop()
})

async function emptyTables(): Promise<void> {
  // DELETE: a TRUNCATE makes new files, which takes longer than everything else here.
  await sql.unsafe(`
    DELETE FROM ingestion_queue; DELETE FROM ingestion_batch; DELETE FROM dead_letter;
    DELETE FROM trace_index; DELETE FROM stored_object; DELETE FROM abandoned_batch`)
}

function emptyStand(steps: string[]): Stand {
  const nothing = { lines: new Map(), requests: new Map(), batches: new Map() }
  return { sql, stager, steps, seen: nothing, taken: new Set() }
}

/**
 * One random life of the queue after another, until there is a counterexample, which is then made small. `live`
 * writes down each step in plain words as it goes, so that they are there when it throws.
 */
async function liveThrough<T>(
  lives: fc.Arbitrary<T>,
  withinMs: number,
  live: (life: T, steps: string[]) => Promise<void>,
) {
  let runs = 0
  let untilMs = runsAsked === undefined ? performance.now() + withinMs : Number.POSITIVE_INFINITY
  let shrinkUntilMs: number | undefined
  const property = fc.asyncProperty(lives, async (life) => {
    if (performance.now() > untilMs) return
    runs++
    const steps: string[] = []
    try {
      await emptyTables()
      await live(life, steps)
    } catch (thrown) {
      shrinkUntilMs ??= performance.now() + SHRINKING_MS_MAX
      untilMs = shrinkUntilMs
      throw new Error(counterexample(steps, coerceError(thrown).message), { cause: thrown })
    }
  })
  // Unbiased: the first runs would be short, and on a busy machine there are few.
  const found = await fc.check(property, { numRuns: runsAsked ?? 1_000, unbiased: true, ...seed })
  if (found.failed) {
    expect.fail(`${coerceError(found.errorInstance).message}\nAgain with MODEL_SEED=${found.seed}.`)
  }
  expect(runs).toBeGreaterThanOrEqual(runsAsked ?? RUNS_MIN)
}

test(
  'whatever workers do, in whatever order, each request is where the model says, and at the end in one object or dead',
  () =>
    liveThrough(commands, MODEL_MS_MAX, async (life, steps) => {
      const stand = emptyStand(steps)
      const model = new Model()
      await fc.asyncModelRun(() => ({ model, real: stand }), life)
      await drain(model, stand)
    }),
  timeout,
)

test(
  'whatever sessions do at the same time, while their connections are cut, each request is in one place, and at the end in one object or dead',
  () =>
    liveThrough(programs, SESSIONS_MS_MAX, async (life, steps) => {
      const ledger = emptyLedger(stager, steps)
      await runAtOnce(sessions, life, ledger)
      await expectOneEnding(sql, ledger)
      await expectOnce(sql, ledger)
      await drainAlone({ name: 'the last worker', sql, hands: [] }, ledger)
      await expectOnce(sql, ledger)
    }),
  timeout,
)

/** Takes all steps, then drains. None of them may be one that cannot be taken. */
async function walk(planners: readonly Planner[]): Promise<Stand> {
  await emptyTables()
  const stand = emptyStand([])
  const model = new Model()
  try {
    for (const planner of planners) {
      const command = new Command(planner)
      expect(command.check(model), `a step after ${stand.steps.at(-1)}`).toBe(true)
      await command.run(model, stand)
    }
    await drain(model, stand)
  } catch (thrown) {
    throw new Error(counterexample(stand.steps, coerceError(thrown).message), { cause: thrown })
  }
  return stand
}

test('every arrow of the diagrams is taken, and no other', async () => {
  expect((await walk(everyArrow)).taken).toEqual(arrows)
})

test('whatever a worker says of a batch that it has lost, in whatever way, changes nothing', async () => {
  const { steps } = await walk(everyLateAct)
  expect(steps.filter((step) => step.endsWith('nothing happens'))).toHaveLength(42)
})

test('a batch keeps its first error and its counts through failures, take-overs, a split and a burial', async () => {
  await expect(walk(longHistory)).resolves.toBeDefined()
})
