import { Failure } from '../foundation/failure.ts'
import type { ApiHandler } from '../ingress/admin.ts'
import type { Sql } from '../postgres/pool.ts'
import type { ObjectStore } from '../sink/object-store.ts'
import { readTrace } from '../sink/read-object.ts'

export const traceHelp = `
Prints every stored span of one trace as OTLP JSON. What still waits in the queue is not in it: see sluice queue.

Examples:
  sluice trace 5b8efff798038103d269b633813fc60c
  sluice trace 5b8efff798038103d269b633813fc60c | jq '.resourceSpans[].scopeSpans[].spans[].name'`

/** The trace as a line of OTLP JSON. Undefined when nothing of it is stored. */
export async function traceCommand(
  sql: Sql,
  store: ObjectStore,
  traceId: string,
): Promise<string | undefined> {
  const trace = await readTrace(sql, store, traceId)
  return trace === undefined ? undefined : `${trace}\n`
}

/** The same for `GET /api/v1/traces/{id}`. */
export function traceHandler(sql: Sql, store: ObjectStore): ApiHandler {
  return async ({ params }) => {
    const id = params.id ?? ''
    try {
      const trace = await readTrace(sql, store, id)
      if (trace === undefined) return { status: 404, body: { error: `no span of trace ${id} is stored` } }
      return { status: 200, body: trace }
    } catch (thrown) {
      if (!(thrown instanceof Failure)) throw thrown
      if (thrown.kind === 'client') return { status: 400, body: { error: thrown.message } }
      if (thrown.kind === 'outage') return { status: 503, body: { error: thrown.message } }
      throw thrown
    }
  }
}
