import type { Socket } from 'node:net'
import postgres from 'postgres'
import { type Clock, systemClock } from '../foundation/clock.ts'
import { Failure } from '../foundation/failure.ts'
import { arrayTypes } from './array-types.ts'
import { codedError, dial } from './dial.ts'
import type { DatabaseLocation } from './location.ts'
import { failedSocket, guardSession, type Session, startupPadding } from './session.ts'

/** From the first packet to a session that is set up. An answer to a client must fit in beside it. */
const CONNECT_MS_MAX = 1_500
/** Waits before a connection is opened again: short, so that a database that came back is used at once. */
const RECONNECT_BASE_SECONDS = 0.02
const RECONNECT_MAX_SECONDS = 0.25
const IDLE_IN_TRANSACTION_MS_MAX = 30_000

/**
 * A pool of postgres.js, where `bigint` is a BigInt. Not to be used: `begin` and `reserve`. When their connection
 * dies, postgres.js runs what follows outside the transaction, or ends the process (porsager/postgres 1208, 1216).
 * One statement, or several in one simple query, is one transaction already.
 */
export type Sql = postgres.Sql<{ bigint: bigint }>
export type Notice = postgres.Notice

export interface PoolOptions {
  url: DatabaseLocation
  /** `application_name`: how the sessions show in pg_stat_activity. */
  name: string
  connections: number
  /** The server ends a statement that takes longer; 0 for never. */
  statementTimeoutMs: number
  planCacheMode?: 'force_generic_plan'
  /** Told of every message of at least WARNING. */
  onNotice?: (notice: Notice) => void
  /** Told whenever a connection that worked is gone, for whatever reason. */
  onClose?: () => void
  clock?: Clock
}

interface Pool {
  readonly options: PoolOptions
  readonly sessions: Set<Session>
  closed: boolean
}

const pools = new WeakMap<object, Pool>()

/**
 * A pool of connections, opened when they are needed. Each new session gets our settings, above all
 * `synchronous_commit=on`, and reads that back, before its first statement; a session that does not is refused with a
 * Failure `configuration`. The settings are sent as statements, since poolers refuse startup parameters they do not
 * know. A connection that cannot be made within 1.5 s rejects the statement that waits for it; nothing is repeated.
 */
export function openPool(options: PoolOptions): Sql {
  const { url, name, connections, onNotice } = options
  const pool: Pool = { options, sessions: new Set(), closed: false }
  const settings = {
    host: url.host,
    port: url.port,
    database: url.database,
    user: url.user,
    ...(url.password === undefined ? {} : { password: () => url.password?.reveal() ?? '' }),
    ssl: false,
    socket: () => openSession(pool),
    max: connections,
    idle_timeout: 0,
    max_lifetime: 0,
    keep_alive: 0,
    // The deadline of the socket stands for it.
    connect_timeout: 0,
    backoff: (retries: number) =>
      Math.min(RECONNECT_MAX_SECONDS, RECONNECT_BASE_SECONDS * 2 ** Math.min(retries, 10)),
    // Its query is awaited by nobody, so that a connection lost meanwhile ends the process.
    fetch_types: false,
    types: { bigint: postgres.BigInt, ...arrayTypes },
    onnotice: onNotice ?? (() => undefined),
    connection: { application_name: name, padding: startupPadding },
  }
  const sql = postgres(settings as postgres.Options<{ bigint: postgres.PostgresType<bigint> }>)
  pools.set(sql, pool)
  return sql
}

async function openSession(pool: Pool): Promise<Socket> {
  const { url, name, onClose, clock = systemClock } = pool.options
  const deadline = clock.deadline(CONNECT_MS_MAX)
  let socket: Socket
  try {
    if (pool.closed) throw codedError('CONNECTION_ENDED', 'the pool is closed')
    socket = await dial(url, deadline)
  } catch (thrown) {
    return failedSocket(thrown)
  }
  if (pool.closed) {
    socket.destroy()
    return failedSocket(codedError('CONNECTION_ENDED', 'the pool is closed'))
  }
  let worked = false
  const session = guardSession(socket, {
    startup: { user: url.user, database: url.database, client_encoding: 'UTF8', application_name: name },
    setup: setupText(pool.options),
    verify: verifySetup,
    deadline,
    onReady: () => {
      worked = true
    },
    onClose: () => {
      pool.sessions.delete(session)
      if (worked) onClose?.()
    },
  })
  pool.sessions.add(session)
  return socket
}

function setupText({ statementTimeoutMs, planCacheMode }: PoolOptions): string {
  const settings = {
    synchronous_commit: 'on',
    client_min_messages: 'warning',
    statement_timeout: statementTimeoutMs,
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS_MAX,
    // A client that vanished must not hold a snapshot or a lock for hours.
    tcp_keepalives_idle: 10,
    tcp_keepalives_interval: 5,
    tcp_keepalives_count: 3,
    plan_cache_mode: planCacheMode ?? 'auto',
    // Our statements are short: compiling one takes longer than running it.
    jit: 'off',
    // What postgres.js reads and writes.
    bytea_output: 'hex',
    datestyle: 'ISO, MDY',
    timezone: 'UTC',
    default_transaction_isolation: 'read committed',
  }
  const calls = Object.entries(settings).map(([key, value]) => `set_config('${key}', '${value}', false)`)
  return `SELECT ${calls.join(', ')}; SELECT current_setting('synchronous_commit')`
}

function verifySetup([synchronousCommit]: readonly (string | null)[]): Failure | undefined {
  if (synchronousCommit === 'on') return undefined
  return new Failure(
    'configuration',
    `synchronous_commit was set to on and reads back as ${synchronousCommit}: something between Sluice and ` +
      'PostgreSQL changes it, so an answer 200 would not mean that the data is on disk.',
  )
}

function poolOf(sql: Sql): Pool {
  const pool = pools.get(sql)
  if (pool === undefined) throw new Error('not a pool that openPool opened')
  return pool
}

/** What `sql` was opened with: for opening another pool to the same database. */
export function poolOptions(sql: Sql): PoolOptions {
  return poolOf(sql).options
}

/** Closes every connection of the pool now. What runs on them fails as an outage; the next statement opens another. */
export function dropConnections(sql: Sql): void {
  for (const session of [...poolOf(sql).sessions]) {
    session.end(codedError('CONNECTION_DESTROYED', 'the connection was given up'))
  }
}

/**
 * Lets statements that run finish, for at most `timeoutMs`, and closes the pool. Resolves in any case, at the latest
 * shortly after that time, with every socket closed.
 */
export async function closePool(sql: Sql, timeoutMs: number): Promise<void> {
  const pool = poolOf(sql)
  const { clock = systemClock } = pool.options
  const ended = new AbortController()
  // `end` does not settle when a connection was lost at a bad moment (porsager/postgres 1097).
  const end = sql.end({ timeout: timeoutMs / 1000 }).finally(() => ended.abort())
  await Promise.race([end, clock.sleep(timeoutMs + 100, ended.signal)])
  pool.closed = true
  dropConnections(sql)
}
