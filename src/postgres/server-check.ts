import { randomUUID } from 'node:crypto'
import { Failure } from '../foundation/failure.ts'
import { answerOf, closePool, openPool, poolOptions, type Sql } from './pool.ts'

const VERSION_MIN = 15
const CLOSE_MS_MAX = 1_000

interface ServerFacts {
  version: string
  version_number: string
  fsync: string
  full_page_writes: string
  is_standby: string
}

/**
 * Refuses a server that cannot keep the promise that a committed row is on disk: older than PostgreSQL 15, with
 * `fsync` or `full_page_writes` off, a standby, or behind a pooler that lends a session for one transaction only. That
 * `synchronous_commit` reads back on is checked by every connection.
 *
 * @throws Failure `configuration` in a sentence, or `outage` when the server cannot be asked.
 */
export async function checkServer(sql: Sql): Promise<void> {
  const { url, clock } = poolOptions(sql)
  const open = () =>
    openPool({
      url,
      name: 'sluice check',
      connections: 1,
      statementTimeoutMs: 5_000,
      ...(clock === undefined ? {} : { clock }),
    })
  const sessions = [open(), open()] as const
  try {
    await checkFacts(sessions[0])
    await checkSessions(sessions)
  } finally {
    await Promise.all(sessions.map((session) => closePool(session, CLOSE_MS_MAX)))
  }
}

async function checkFacts(sql: Sql): Promise<void> {
  const [facts] = await answerOf(
    sql,
    sql<[ServerFacts]>`
      SELECT
        current_setting('server_version') AS version,
        current_setting('server_version_num') AS version_number,
        current_setting('fsync') AS fsync,
        current_setting('full_page_writes') AS full_page_writes,
        pg_is_in_recovery()::text AS is_standby`.simple(),
  )
  if (Number(facts.version_number) < VERSION_MIN * 10_000) {
    refuse(`The database server is PostgreSQL ${facts.version}; Sluice needs ${VERSION_MIN} or newer.`)
  }
  if (facts.is_standby === 'true') {
    refuse('The database server is a standby, which takes no writes; point DATABASE_URL at the primary.')
  }
  for (const setting of ['fsync', 'full_page_writes'] as const) {
    if (facts[setting] === 'off') {
      refuse(
        `The database server runs with ${setting}=off, so a crash could undo what Sluice has confirmed; ` +
          `set ${setting}=on.`,
      )
    }
  }
}

/**
 * A pooler in transaction mode hands both of our connections the same backend in turn, or one connection different
 * backends, or forgets what was set on it.
 */
async function checkSessions(sessions: readonly [Sql, Sql]): Promise<void> {
  const markers = new Map(sessions.map((session) => [session, randomUUID()]))
  const pids = new Map<Sql, string>()
  for (const [session, marker] of markers) {
    const [row] = await answerOf(
      session,
      session.unsafe<[{ pid: string }]>(
        `SELECT pg_backend_pid()::text AS pid, set_config('sluice.session', '${marker}', false) AS marker`,
      ),
    )
    pids.set(session, row.pid)
  }
  for (const [session, marker] of markers) {
    const [row] = await answerOf(
      session,
      session.unsafe<[{ pid: string; marker: string | null }]>(
        `SELECT pg_backend_pid()::text AS pid, current_setting('sluice.session', true) AS marker`,
      ),
    )
    if (row.pid !== pids.get(session) || row.marker !== marker) refuseTransactionPooler()
  }
  if (new Set(pids.values()).size !== sessions.length) refuseTransactionPooler()
}

function refuseTransactionPooler(): never {
  refuse(
    'DATABASE_URL leads to a connection pooler in transaction mode, which takes our session settings away between ' +
      'two statements; use its session mode, or connect to PostgreSQL directly.',
  )
}

function refuse(sentence: string): never {
  throw new Failure('configuration', sentence)
}
