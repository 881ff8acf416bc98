import type { Socket } from 'node:net'
import postgres from 'postgres'
import { type Clock, systemClock } from '../foundation/clock.ts'
import { Failure } from '../foundation/failure.ts'
import { arrayTypes } from './array-types.ts'
import { Deadlines } from './deadlines.ts'
import { codedError, dial } from './dial.ts'
import type { DatabaseLocation } from './location.ts'
import { failedSocket, guardSession, type Session, startupPadding } from './session.ts'
import { classifyPostgresError } from './sqlstate.ts'

/** From the first packet to a session that is set up. An answer to a client must fit in beside it. */
const CONNECT_MS_MAX = 1_500
/** The server's own `statement_timeout` comes first; only a server that says nothing any more lets this much pass. */
const SILENCE_MS_MAX = 5_000
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
  /** How long a connection may take to be made and set up: 1,500 unless said otherwise. */
  connectTimeoutMs?: number
  planCacheMode?: 'force_generic_plan'
  /** Told of every message of at least WARNING. */
  onNotice?: (notice: Notice) => void
  /** Told whenever a connection that worked is gone, for whatever reason. */
  onClose?: () => void
  clock?: Clock
}

/** postgres.js with its connections and the statements that wait for one. */
interface Connections {
  readonly sql: Sql
  readonly sessions: Set<Session>
  readonly deadlines: Deadlines
  /** No session is opened any more. */
  isOver: boolean
}

interface Pool {
  readonly options: PoolOptions
  readonly open: () => Connections
  connections: Connections
  isClosing: boolean
}

const pools = new WeakMap<object, Pool>()

/**
 * A pool of connections, opened when they are needed. Each new session gets our settings, above all
 * `synchronous_commit=on`, and reads that back, before its first statement; a session that does not is refused with a
 * Failure `configuration`. The settings are sent as statements, since poolers refuse startup parameters they do not
 * know. A connection that cannot be made within `connectTimeoutMs` rejects the statement that waits for it; nothing is
 * repeated.
 */
export function openPool(options: PoolOptions): Sql {
  const open = () => openConnections(options, () => dropConnections(sql))
  // Stands for whatever connections the pool has at the moment.
  const sql = new Proxy((() => undefined) as unknown as Sql, {
    apply: (_target, _self, query: Parameters<Sql>) => pool.connections.sql(...query),
    get: (_target, name) => Reflect.get(pool.connections.sql, name),
  })
  const pool: Pool = { options, open, connections: open(), isClosing: false }
  pools.set(sql, pool)
  return sql
}

function openConnections(options: PoolOptions, onLate: () => void): Connections {
  const { url, name, connections: max, statementTimeoutMs, onNotice, clock = systemClock } = options
  const patienceMs = statementTimeoutMs === 0 ? Number.POSITIVE_INFINITY : statementTimeoutMs + SILENCE_MS_MAX
  const settings = {
    host: url.host,
    port: url.port,
    database: url.database,
    user: url.user,
    ...(url.password === undefined ? {} : { password: () => url.password?.reveal() ?? '' }),
    ssl: false,
    socket: () => openSession(options, connections),
    max,
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
  const connections: Connections = {
    sql: postgres(settings as postgres.Options<{ bigint: postgres.PostgresType<bigint> }>),
    sessions: new Set(),
    deadlines: new Deadlines({ patienceMs, clock, onLate }),
    isOver: false,
  }
  return connections
}

async function openSession(options: PoolOptions, connections: Connections): Promise<Socket> {
  const { url, name, onClose, connectTimeoutMs = CONNECT_MS_MAX, clock = systemClock } = options
  const deadline = clock.deadline(connectTimeoutMs)
  let socket: Socket
  try {
    if (connections.isOver) throw codedError('CONNECTION_ENDED', 'the pool is closed')
    socket = await dial(url, deadline)
  } catch (thrown) {
    return failedSocket(thrown)
  }
  if (connections.isOver) {
    socket.destroy()
    return failedSocket(codedError('CONNECTION_ENDED', 'the pool is closed'))
  }
  let worked = false
  const session = guardSession(socket, {
    startup: { user: url.user, database: url.database, client_encoding: 'UTF8', application_name: name },
    setup: setupText(options),
    verify: verifySetup,
    deadline,
    onReady: () => {
      worked = true
    },
    onClose: () => {
      connections.sessions.delete(session)
      if (worked) onClose?.()
    },
  })
  connections.sessions.add(session)
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
    // How a statement with literals in its text is read.
    standard_conforming_strings: 'on',
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

/**
 * What the query answers. A server that hangs keeps no `statement_timeout`, so that the client waits no longer than
 * 5 s beyond it, for a connection and for the answer together; then everything that the pool is doing is given up.
 * A pool without a `statement_timeout` waits for ever.
 *
 * @throws Failure, classified; `outage` with the code ETIMEDOUT for a query whose time was up.
 */
export function answerOf<T>(sql: Sql, query: PromiseLike<T>): Promise<T> {
  return poolOf(sql).connections.deadlines.hold(query)
}

/**
 * Closes every connection of the pool now. What runs on them and what waits for one fails as an outage, within
 * milliseconds even when the server hangs; the next statement opens another.
 */
export function dropConnections(sql: Sql): void {
  const pool = poolOf(sql)
  const dropped = pool.connections
  if (!pool.isClosing) {
    dropped.isOver = true
    pool.connections = pool.open()
  }
  const reason = codedError('CONNECTION_DESTROYED', 'the connection was given up')
  for (const session of [...dropped.sessions]) session.end(reason)
  dropped.deadlines.end(classifyPostgresError(reason))
  // Statements that wait for a connection would each try to make one otherwise. Nothing rejects this promise.
  if (!pool.isClosing) void dropped.sql.end({ timeout: 0 })
}

/**
 * Lets statements that run finish, for at most `timeoutMs`, and closes the pool. Resolves in any case, at the latest
 * shortly after that time, with every socket closed.
 */
export async function closePool(sql: Sql, timeoutMs: number): Promise<void> {
  const pool = poolOf(sql)
  const { clock = systemClock } = pool.options
  const { connections } = pool
  pool.isClosing = true
  const ended = new AbortController()
  // `end` does not settle when a connection was lost at a bad moment (porsager/postgres 1097).
  const end = connections.sql.end({ timeout: timeoutMs / 1000 }).finally(() => ended.abort())
  await Promise.race([end, clock.sleep(timeoutMs + 100, ended.signal)])
  connections.isOver = true
  dropConnections(sql)
}
