import type fc from 'fast-check'
import { coerceError } from '../../../src/foundation/failure.ts'
import type { Sql } from '../../../src/postgres/pool.ts'
import type { Stager } from '../../../src/queue/stage.ts'
import { arrow, arrowsOf, batchStates, requestStates, type Step } from '../states.ts'
import { agreeOnLines, Disagreement } from './disagreement.ts'
import type { Model } from './model.ts'
import { linesOf, lookAtTables, type Seen } from './tables.ts'

/** The real side of a run. */
export interface Stand {
  sql: Sql
  stager: Stager
  /** What was done, in plain words. */
  steps: string[]
  /** What the last look saw. */
  seen: Seen
  /** The arrows of the diagrams that were taken. */
  taken: Set<string>
}

/** A step as it is about to be taken. */
export interface Plan {
  words: string
  /** Undefined for what must change nothing. */
  by: Step | undefined
  /** Does it on both sides. Whatever it answers is added to the words. */
  act: (stand: Stand) => Promise<string>
}

/** What a step would do to the model as it is; undefined where there is nothing for it to do. */
export type Planner = (model: Model) => Plan | undefined

/** What may happen, for requests and for batches. */
export const arrows: ReadonlySet<string> = new Set([
  ...[...arrowsOf(requestStates)].map((one) => `request: ${one}`),
  ...[...arrowsOf(batchStates)].map((one) => `batch: ${one}`),
])

/** One step for fast-check: the act, then a look at all tables. */
export class Command implements fc.AsyncCommand<Model, Stand> {
  readonly #planner: Planner

  constructor(planner: Planner) {
    this.#planner = planner
  }

  check(model: Model): boolean {
    return this.#planner(model) !== undefined
  }

  async run(model: Model, stand: Stand): Promise<void> {
    const plan = this.#planner(model)
    if (plan === undefined) return
    model.step++
    stand.steps.push(plan.words)
    try {
      const answer = await plan.act(stand)
      if (answer !== '') stand.steps[stand.steps.length - 1] = `${plan.words}: ${answer}`
      await look(model, stand, plan.by)
    } catch (thrown) {
      if (thrown instanceof Disagreement) throw thrown
      const error = coerceError(thrown)
      throw new Disagreement(`the step was refused: ${error.message}`, { cause: error })
    }
  }
}

/** The tables are what the model says, and came there by arrows of the diagrams. */
async function look(model: Model, stand: Stand, by: Step | undefined): Promise<void> {
  const seen = await lookAtTables(stand.sql, model)
  agreeOnLines(seen.lines, linesOf(model))
  for (const kind of ['request', 'batch'] as const) {
    const [before, after] =
      kind === 'request' ? [stand.seen.requests, seen.requests] : [stand.seen.batches, seen.batches]
    for (const name of new Set<string>([...before.keys(), ...after.keys()])) {
      const [from, to] = [before.get(name), after.get(name)]
      if (from === to) continue
      const taken = `${kind}: ${by === undefined ? `from ${from} to ${to}` : arrow(from, by, to)}`
      if (!arrows.has(taken)) throw new Disagreement(`${name} took an arrow of no diagram, ${taken}`)
      stand.taken.add(taken)
    }
  }
  const missing = [...model.catalog.keys()].filter((key) => !model.store.has(key))
  if (missing.length > 0)
    throw new Disagreement(`the catalog names what is not stored: ${missing.join(', ')}`)
  stand.seen = seen
}

/** One of them, by a number that stays small when a counterexample is made small. */
export function pick<T>(among: readonly T[], number: number): T | undefined {
  return among[number % among.length]
}
