import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { coerceError } from '../../src/foundation/failure.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import type { Stager } from '../../src/queue/stage.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { counterexample } from './model/disagreement.ts'
import { drain } from './model/drain.ts'
import { everyArrow } from './model/every-arrow.ts'
import { Model } from './model/model.ts'
import { commands } from './model/random-steps.ts'
import { arrows, Command, type Stand } from './model/steps.ts'
import { stagerOn } from './rows.ts'

/** Runs of the model test; without it as many as 20 s allow, and at most 100. */
const runsAsked = process.env.MODEL_RUNS === undefined ? undefined : Number(process.env.MODEL_RUNS)
const seed = process.env.MODEL_SEED === undefined ? {} : { seed: Number(process.env.MODEL_SEED) }
const RUNS_MAX = 100
const RUNS_MIN = 5
const RUNNING_MS_MAX = 20_000
const SHRINKING_MS_MAX = 60_000
/** Generous: it is there for runs that hang. */
const RUN_MS_MAX = 5_000

let database: TestDatabase
let sql: Sql
let stager: Stager

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ name: 'model', connections: 1, planCacheMode: 'force_generic_plan' })
  stager = stagerOn(database)
  await stager.start()
})
afterAll(async () => {
  await stager.stop()
  await closePool(sql, 1000)
  await database.drop()
})

async function emptyTables(): Promise<void> {
  // DELETE: a TRUNCATE makes new files, which takes longer than everything else here.
  await sql.unsafe(`
    DELETE FROM ingestion_queue; DELETE FROM ingestion_batch; DELETE FROM dead_letter;
    DELETE FROM trace_index; DELETE FROM stored_object; DELETE FROM abandoned_batch`)
}

async function emptyStand(): Promise<Stand> {
  await emptyTables()
  const nothing = { lines: new Map(), requests: new Map(), batches: new Map() }
  return { sql, stager, steps: [], seen: nothing, taken: new Set() }
}

/** One random life of the queue after another, until there is a counterexample, which is then made small. */
async function liveThrough(commandLists: typeof commands): Promise<void> {
  let runs = 0
  let untilMs = runsAsked === undefined ? performance.now() + RUNNING_MS_MAX : Number.POSITIVE_INFINITY
  const property = fc.asyncProperty(commandLists, async (steps) => {
    if (performance.now() > untilMs) return
    runs++
    const stand = await emptyStand()
    const model = new Model()
    try {
      await fc.asyncModelRun(() => ({ model, real: stand }), steps)
      await drain(model, stand)
    } catch (thrown) {
      untilMs = Math.min(untilMs, performance.now() + SHRINKING_MS_MAX)
      throw new Error(counterexample(stand.steps, coerceError(thrown).message), { cause: thrown })
    }
  })
  const found = await fc.check(property, { numRuns: runsAsked ?? RUNS_MAX, ...seed })
  if (found.failed) {
    expect.fail(`${coerceError(found.errorInstance).message}\nAgain with MODEL_SEED=${found.seed}.`)
  }
  expect(runs).toBeGreaterThanOrEqual(runsAsked ?? RUNS_MIN)
}

test(
  'whatever workers do, in whatever order, each request is where the model says, and at the end in one object or dead',
  () => liveThrough(commands),
  RUNNING_MS_MAX + SHRINKING_MS_MAX + (runsAsked ?? 1) * RUN_MS_MAX,
)

test('every arrow of the diagrams is taken, and no other', async () => {
  const stand = await emptyStand()
  const model = new Model()
  for (const planner of everyArrow) {
    const command = new Command(planner)
    expect(command.check(model), `a step after ${stand.steps.at(-1)}`).toBe(true)
    await command.run(model, stand)
  }
  await drain(model, stand)
  expect(stand.taken).toEqual(arrows)
})
