import { connect } from 'node:net'
import postgres from 'postgres'
import type { DatabaseLocation } from './location.ts'

export type Sql = postgres.Sql<{ bigint: bigint }>
export type Notice = postgres.Notice

export interface PoolOptions {
  url: DatabaseLocation
  /** `application_name`: how the sessions show in pg_stat_activity. */
  name: string
  connections: number
  statementTimeoutMs: number
  planCacheMode?: 'force_generic_plan'
  onNotice?: (notice: Notice) => void
}

export function openPool(options: PoolOptions): Sql {
  const { url, name, connections, statementTimeoutMs, planCacheMode, onNotice } = options
  const socket = () => {
    const path = `${url.host}/.s.PGSQL.${url.port}`
    return url.host.startsWith('/')
      ? connect({ path })
      : connect({ host: url.host, port: url.port, noDelay: true })
  }
  const settings: postgres.Options<{ bigint: postgres.PostgresType<bigint> }> & { socket: unknown } = {
    host: url.host,
    port: url.port,
    database: url.database,
    user: url.user,
    password: url.password?.reveal() ?? '',
    max: connections,
    socket,
    connect_timeout: 1.5,
    backoff: () => 0.1,
    types: { bigint: postgres.BigInt },
    onnotice: onNotice ?? (() => undefined),
    connection: {
      application_name: name,
      statement_timeout: statementTimeoutMs,
      ...(planCacheMode === undefined ? {} : { plan_cache_mode: planCacheMode }),
    },
  }
  return postgres(settings)
}

export async function closePool(sql: Sql, timeoutMs: number): Promise<void> {
  await sql.end({ timeout: timeoutMs / 1000 })
}
