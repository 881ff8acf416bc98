import { inspect, isDeepStrictEqual } from 'node:util'
import type { Lines } from './tables.ts'

/** The database did something else than it should, or took an arrow that is not drawn. */
export class Disagreement extends Error {}

const short = (value: unknown) =>
  inspect(value, { depth: 4, breakLength: Number.POSITIVE_INFINITY, maxStringLength: 200 })

export function agree(what: string, database: unknown, model: unknown): void {
  if (isDeepStrictEqual(database, model)) return
  throw new Disagreement(`${what}: the database says ${short(database)}, the model ${short(model)}`)
}

/** Only what differs, a line for each side. */
export function agreeOnLines(database: Lines, model: Lines): void {
  const names = [...new Set([...database.keys(), ...model.keys()])].toSorted()
  const differing = names.filter((name) => database.get(name) !== model.get(name))
  if (differing.length === 0) return
  throw new Disagreement(
    differing
      .flatMap((name) => [
        name,
        `    tables: ${database.get(name) ?? 'not there'}`,
        `    model:  ${model.get(name) ?? 'not there'}`,
      ])
      .join('\n  '),
  )
}

/** The counterexample for people: the steps in order, then what is wrong after them. */
export function counterexample(steps: readonly string[], difference: string): string {
  return [
    `A counterexample of ${steps.length} steps:`,
    ...steps.map((step, index) => `  ${index + 1}. ${step}`),
    `What is wrong:\n  ${difference}`,
  ].join('\n')
}
