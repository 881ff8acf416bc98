import { connect } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { type DatabaseLocation, Secret } from '../../src/postgres/location.ts'
import { closePool, openPool, type Sql } from '../../src/postgres/pool.ts'
import { Stager } from '../../src/queue/stage.ts'
import { row } from '../queue/rows.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { listen, message } from './fake-server.ts'

let database: TestDatabase
let sql: Sql
beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 1 })
})
afterAll(async () => {
  await closePool(sql, 1_000)
  await database.drop()
})

/** A stager on this server, running while `use` does. */
async function whileStaging(url: DatabaseLocation, use: (stager: Stager) => Promise<void>): Promise<void> {
  const stager = new Stager({
    open: (onNotice) =>
      openPool({ url, name: 'stager', connections: 1, statementTimeoutMs: 5_000, onNotice }),
    close: (pool) => closePool(pool, 200),
    clock: systemClock,
  })
  await stager.start()
  try {
    await use(stager)
  } finally {
    await stager.stop()
  }
}

test('a server without a connection to spare is an outage, and takes rows when it has one', async () => {
  // Limits of a role do not hold for superusers, whom the tests log in as; nor does max_connections, quite.
  const user = `limited_${database.location.database}`
  await sql.unsafe(`CREATE ROLE ${user} LOGIN PASSWORD 'word' CONNECTION LIMIT 0`)
  await sql.unsafe(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${user}`)
  try {
    await whileStaging({ ...database.location, user, password: new Secret('word') }, async (stager) => {
      await expect(stager.append(row('refused'))).rejects.toMatchObject({ kind: 'outage', code: '53300' })
      await sql.unsafe(`ALTER ROLE ${user} CONNECTION LIMIT -1`)
      await stager.append(row('taken'))
    })
  } finally {
    await sql.unsafe(`DROP OWNED BY ${user}`)
    await sql.unsafe(`DROP ROLE ${user}`)
  }
  expect(await sql`DELETE FROM ingestion_queue RETURNING payload`).toEqual([
    { payload: Buffer.from('taken') },
  ])
})

test('a database that is closed to connections for a while is an outage as long as it is', async () => {
  const name = database.location.database
  // Nobody can close the database to which he is connected.
  const elsewhere = openPool({
    url: { ...database.location, database: 'postgres' },
    name: 'elsewhere',
    connections: 1,
    statementTimeoutMs: 5_000,
  })
  await whileStaging(database.location, async (stager) => {
    await elsewhere.unsafe(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`)
    await expect(stager.append(row('refused'))).rejects.toMatchObject({ kind: 'outage', code: '55000' })
    await elsewhere.unsafe(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`)
    await stager.append(row('taken'))
  })
  await closePool(elsewhere, 1_000)
  expect(await sql`DELETE FROM ingestion_queue RETURNING payload`).toEqual([
    { payload: Buffer.from('taken') },
  ])
})

test.each([
  ['57P03', 'the database system is starting up'],
  ['57P03', 'the database system is shutting down'],
  ['57P01', 'terminating connection due to administrator command'],
])(
  'a server that refuses a session with %s, %s, is an outage, and takes rows when it is up',
  async (code, text) => {
    let isUp = false
    const server = await listen((client) => {
      if (!isUp) {
        const fields = `SFATAL\0VFATAL\0C${code}\0M${text}\0\0`
        client.once('data', () => client.end(message('E', Buffer.from(fields))))
        return
      }
      const upstream = connect(`${database.location.host}/.s.PGSQL.${database.location.port}`)
      upstream.on('error', () => client.destroy())
      client.pipe(upstream).pipe(client)
    }, database.location)
    await whileStaging(server.location, async (stager) => {
      await expect(stager.append(row('refused'))).rejects.toMatchObject({ kind: 'outage', code })
      isUp = true
      await stager.append(row('taken'))
    })
    await server.close()
    expect(await sql`DELETE FROM ingestion_queue RETURNING payload`).toEqual([
      { payload: Buffer.from('taken') },
    ])
  },
)
