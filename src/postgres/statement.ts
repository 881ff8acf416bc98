import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { ParameterOrJSON } from 'postgres'
import { answerOf, type Sql } from './pool.ts'

/** What a statement may be given: text and numbers travel as text, an object as JSON, a string as an array literal. */
export type Parameter = string | number | bigint | boolean | null | Buffer | readonly object[]

/**
 * The folder `sql/` of the package, whether this file runs from the checkout or from `dist/`.
 *
 * @throws Error when no folder above this file holds one: the package was taken apart.
 */
export function sqlFolder(): string {
  let folder = import.meta.dirname
  while (!existsSync(join(folder, 'sql', 'migrations'))) {
    const parent = dirname(folder)
    if (parent === folder) throw new Error(`no folder above ${import.meta.dirname} holds sql/migrations`)
    folder = parent
  }
  return join(folder, 'sql')
}

/**
 * The statement in `sql/{name}.sql` as a function. Its text is constant, so the server plans it once a connection.
 *
 * @returns a function that answers the rows, in the time that `answerOf` allows, and rejects with a classified
 * `Failure` for whatever goes wrong.
 */
export function statement<Row extends object>(
  name: string,
): (sql: Sql, parameters?: readonly Parameter[]) => Promise<readonly Row[]> {
  const text = readStatement(name)
  return (sql, parameters = []) =>
    answerOf<readonly Row[]>(
      sql,
      sql.unsafe<Row[]>(text, parameters as ParameterOrJSON<never>[], { prepare: true }),
    )
}

/**
 * The statement in `sql/{name}.sql` as a function of its parameters: its text with them as literals, for where several
 * statements are said in one go, which can have none. A string is taken as it is because sessions have
 * `standard_conforming_strings=on`.
 */
export function inlineStatement(
  name: string,
): (parameters: readonly (string | number | bigint | boolean)[]) => string {
  // Text and the numbers of parameters take turns.
  const parts = readStatement(name)
    .replaceAll(/^--.*\n/gm, '')
    .split(/\$(\d+)/)
  return (parameters) => {
    const literals = parameters.map((value) => `'${String(value).replaceAll("'", "''")}'`)
    return parts.map((part, place) => (place % 2 === 0 ? part : literals[Number(part) - 1])).join('')
  }
}

function readStatement(name: string): string {
  return readFileSync(join(sqlFolder(), `${name}.sql`), 'utf8')
}

/** A PostgreSQL array literal of values that need no quoting: numbers, uuids. */
export function arrayLiteral(values: readonly (string | number | bigint)[]): string {
  return `{${values.join(',')}}`
}
