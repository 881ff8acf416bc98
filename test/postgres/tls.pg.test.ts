import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  type DatabaseLocation,
  databaseUrlWithPassword,
  parseDatabaseUrl,
} from '../../src/postgres/location.ts'
import { closePool, openPool } from '../../src/postgres/pool.ts'
import { classifyPostgresError } from '../../src/postgres/sqlstate.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { listen } from './fake-server.ts'

/** Self-signed, for localhost, until 2126. It guards nothing but this test. */
const certificate = join(import.meta.dirname, 'tls', 'localhost.crt')
const key = join(import.meta.dirname, 'tls', 'localhost.key')

let database: TestDatabase
let secure: Awaited<ReturnType<typeof listen>>
let plain: Awaited<ReturnType<typeof listen>>
let encrypted = 0

beforeAll(async () => {
  database = await cloneDatabase()
  const context = { isServer: true, cert: readFileSync(certificate), key: readFileSync(key) }
  secure = await listen((client) => {
    client.once('data', () => {
      client.write('S')
      const session = new TLSSocket(client, context)
      session.on('secure', () => encrypted++)
      forward(session, database.location)
    })
  }, database.location)
  plain = await listen((client) => {
    client.once('data', () => {
      client.write('N')
      forward(client, database.location)
    })
  }, database.location)
})
afterAll(async () => {
  await secure.close()
  await plain.close()
  await database.drop()
})

function forward(client: Socket, { host, port }: DatabaseLocation): void {
  const upstream = connect(`${host}/.s.PGSQL.${port}`)
  upstream.on('error', () => client.destroy())
  client.on('error', () => upstream.destroy())
  client.pipe(upstream).pipe(client)
}

/** The outcome of a statement on a connection that the URL with these parameters makes. */
async function outcome(
  server: { location: DatabaseLocation },
  host: string,
  parameters: string,
): Promise<string> {
  const url = `${databaseUrlWithPassword({ ...server.location, host })}?${parameters}`
  const sql = openPool({ url: parseDatabaseUrl(url), name: 'tls', connections: 1, statementTimeoutMs: 5_000 })
  encrypted = 0
  try {
    await sql`SELECT 1`
    return encrypted > 0 ? 'encrypted' : 'plain'
  } catch (thrown) {
    const { kind, code, message } = classifyPostgresError(thrown)
    return `${kind}: ${code ?? message}`
  } finally {
    await closePool(sql, 1_000)
  }
}

test.each([
  ['localhost', 'sslmode=require', 'encrypted'],
  ['localhost', 'sslmode=prefer', 'encrypted'],
  ['localhost', `sslmode=verify-full&sslrootcert=${certificate}`, 'encrypted'],
  ['127.0.0.1', `sslmode=verify-ca&sslrootcert=${certificate}`, 'encrypted'],
  [
    '127.0.0.1',
    `sslmode=verify-full&sslrootcert=${certificate}`,
    'configuration: ERR_TLS_CERT_ALTNAME_INVALID',
  ],
  ['localhost', 'sslmode=verify-full', 'configuration: DEPTH_ZERO_SELF_SIGNED_CERT'],
  ['localhost', 'sslmode=verify-ca&sslrootcert=system', 'configuration: DEPTH_ZERO_SELF_SIGNED_CERT'],
])('to a server with TLS as %s, %s is %s', async (host, parameters, expected) => {
  expect(await outcome(secure, host, parameters)).toBe(expected)
})

test.each([
  ['sslmode=prefer', 'plain'],
  ['sslmode=require', 'configuration: The database server has no TLS, and sslmode=require demands it.'],
  [
    'sslmode=verify-full&sslrootcert=/nowhere.pem',
    'configuration: The database server has no TLS, and sslmode=verify-full demands it.',
  ],
])('to a server without TLS, %s is %s', async (parameters, expected) => {
  expect(await outcome(plain, 'localhost', parameters)).toBe(expected)
})

test('a certificate file that is not there is named', async () => {
  expect(await outcome(secure, 'localhost', 'sslmode=verify-full&sslrootcert=/nowhere.pem')).toBe(
    'configuration: The file of sslrootcert in DATABASE_URL cannot be read: ' +
      "ENOENT: no such file or directory, open '/nowhere.pem'",
  )
})
