import type { Sql } from '../postgres/pool.ts'
import type { ObjectStore } from '../sink/object-store.ts'
import { readObject } from '../sink/read-object.ts'

export const catHelp = `
Prints OTLP JSON, one request a line, in the order in which the requests were accepted. With --json the lines are one
JSON array.

Examples:
  sluice cat "$(sluice objects --json | jq -r '.[0].key')"
  sluice cat KEY | jq '.resourceSpans[].resource'`

/** The requests of an object, piece by piece. Undefined when there is no such object. */
export async function catCommand(
  sql: Sql,
  store: ObjectStore,
  options: { key: string; keyPrefix: string; json: boolean },
): Promise<AsyncIterable<string> | undefined> {
  const requests = await readObject(sql, store, options.key, options.keyPrefix)
  if (requests === undefined) return undefined
  return options.json ? asArray(requests) : asLines(requests)
}

async function* asLines(requests: AsyncIterable<string>): AsyncIterable<string> {
  for await (const request of requests) yield `${request}\n`
}

async function* asArray(requests: AsyncIterable<string>): AsyncIterable<string> {
  let before = '['
  for await (const request of requests) {
    yield before + request
    before = ','
  }
  yield before === '[' ? '[]\n' : ']\n'
}
