import { randomBytes } from 'node:crypto'
import { setImmediate, setTimeout as wait } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import type { Failure } from '../../src/foundation/failure.ts'
import { closePool, openPool, type Sql } from '../../src/postgres/pool.ts'
import type { Stager } from '../../src/queue/stage.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { row, stagerOn } from './rows.ts'

let database: TestDatabase
let sql: Sql
let stager: Stager
let unknown: number

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})
beforeEach(async () => {
  await sql`TRUNCATE ingestion_queue`
  unknown = 0
  stager = stagerOn(database, (rows) => {
    unknown += rows
  })
  await stager.start()
})
afterEach(() => stager.stop())

async function payloads(): Promise<string[]> {
  const rows = await sql<{ payload: Buffer }[]>`SELECT payload FROM ingestion_queue ORDER BY id`
  return rows.map(({ payload }) => payload.toString())
}

async function kindOf(append: Promise<void>): Promise<string> {
  return append.then(
    () => 'staged',
    (failure: Failure) => failure.kind,
  )
}

async function eventually(holds: () => Promise<boolean>): Promise<void> {
  await expect.poll(holds, { interval: 5, timeout: 10_000 }).toBe(true)
}

test('a staged row has every column as it was given', async () => {
  const given = row(Buffer.from('00ff0102', 'hex'), {
    signal: 'logs',
    tenant: 'team-a',
    encoding: 'gzip',
    items: 7,
    unpackedBytes: 99,
    requestId: 'id 1',
    summary: Buffer.from('0900', 'hex'),
  })
  await stager.append(given)
  const [found] = await sql`
    SELECT signal, tenant, encoding, items, bytes, unpacked_bytes, request_id, summary, payload, batch_id,
      received_at <= clock_timestamp() AS received FROM ingestion_queue`
  expect(found).toEqual({
    signal: 3,
    tenant: 'team-a',
    encoding: 1,
    items: 7,
    bytes: 4,
    unpacked_bytes: 99,
    request_id: 'id 1',
    summary: given.summary,
    payload: given.payload,
    batch_id: null,
    received: true,
  })
})

test('requests that come together share transactions of at most 256 rows', async () => {
  await Promise.all(Array.from({ length: 1000 }, (_, i) => stager.append(row(`${i}`))))
  const groups = await sql<{ rows: number }[]>`
    SELECT count(*)::int AS rows FROM ingestion_queue GROUP BY xmin::text::bigint ORDER BY 1`
  expect(groups.reduce((sum, group) => sum + group.rows, 0)).toBe(1000)
  expect(groups.length).toBeLessThanOrEqual(7)
  expect(Math.max(...groups.map((group) => group.rows))).toBe(256)
})

test('a group holds at most 8 MiB', async () => {
  const large = Buffer.alloc(3 * 1024 * 1024)
  await Promise.all(
    [row('first'), row('second'), row(large), row(large), row(large)].map((one) => stager.append(one)),
  )
  const groups = await sql<{ bytes: number }[]>`
    SELECT sum(bytes)::int AS bytes FROM ingestion_queue GROUP BY xmin::text::bigint`
  expect(groups.every((group) => group.bytes <= 8 * 1024 * 1024)).toBe(true)
})

test('large and small payloads of one group are stored byte for byte', async () => {
  const kibibytes = [1, 256, 257, 0, 512, 1, 1000, 3000]
  const payloads = kibibytes.map((size) => randomBytes(size * 1024))
  await Promise.all(
    payloads.map((payload, place) => stager.append({ ...row(`${place}`), items: place, payload })),
  )
  const stored = await sql<{ payload: Buffer }[]>`SELECT payload FROM ingestion_queue ORDER BY items`
  expect(stored.map(({ payload }, place) => payload.equals(payloads[place] as Buffer))).toEqual(
    payloads.map(() => true),
  )
})

test('requests that arrive while a commit is under way share the next one, whatever number of connections is free', async () => {
  await stager.append(row('warm'))
  const appends: Promise<void>[] = []
  for (let i = 0; i < 40; i++) {
    appends.push(stager.append(row(`${i}`)))
    await setImmediate()
  }
  await Promise.all(appends)
  const [at] = await sql<{ connections: number }[]>`
    SELECT count(*)::int AS connections FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE '%stager%'`
  expect(at?.connections).toBe(1)
})

test('a commit that takes long holds nobody up: the next group goes over another connection', async () => {
  await sql`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF NEW.tenant = 'slow' THEN PERFORM pg_sleep(1); END IF; RETURN NEW; END $$`
  await sql`CREATE TRIGGER slow BEFORE INSERT ON ingestion_queue FOR EACH ROW EXECUTE FUNCTION slow()`
  try {
    let isOver = false
    const slow = stager.append(row('slow', { tenant: 'slow' })).then(() => {
      isOver = true
    })
    await wait(100)
    for (let i = 0; i < 3; i++) {
      const startedMs = performance.now()
      await stager.append(row(`${i}`))
      // It takes a connection the first time, and the next look at what waits is at most 100 ms away.
      expect(performance.now() - startedMs).toBeLessThan(500)
      expect(isOver).toBe(false)
    }
    await slow
  } finally {
    await sql`DROP FUNCTION slow CASCADE`
  }
})

test('append resolves only after the row is visible to others', async () => {
  for (let i = 0; i < 20; i++) {
    await stager.append(row(`${i}`))
    const [found] = await sql`SELECT count(*)::int AS rows FROM ingestion_queue`
    expect(found).toEqual({ rows: i + 1 })
  }
})

test('a row that PostgreSQL refuses fails alone', async () => {
  await sql.unsafe(`ALTER TABLE ingestion_queue ADD CONSTRAINT no_poison CHECK (request_id <> 'poison')`)
  try {
    const kinds = await Promise.all(
      ['a', 'poison', 'b', 'c'].map((id) => kindOf(stager.append(row(id, { requestId: id })))),
    )
    expect(kinds).toEqual(['staged', 'data', 'staged', 'staged'])
    expect((await payloads()).sort()).toEqual(['a', 'b', 'c'])
    expect(unknown).toBe(0)
  } finally {
    await sql.unsafe('ALTER TABLE ingestion_queue DROP CONSTRAINT no_poison')
  }
})

test('a warning at the commit is no success', async () => {
  await sql.unsafe(`
    CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE WARNING 'canceling wait for synchronous replication'; RETURN NULL; END $$;
    CREATE TRIGGER warn AFTER INSERT ON ingestion_queue FOR EACH STATEMENT EXECUTE FUNCTION warn()`)
  try {
    expect(await kindOf(stager.append(row('doubtful')))).toBe('outage')
  } finally {
    await sql.unsafe('DROP TRIGGER warn ON ingestion_queue; DROP FUNCTION warn()')
  }
  expect(await kindOf(stager.append(row('good')))).toBe('staged')
})

test('G9: a connection that dies in a commit is an outage, and the next request is staged', async () => {
  await sql.begin(async (blocking) => {
    await blocking`LOCK TABLE ingestion_queue IN ACCESS EXCLUSIVE MODE`
    const append = kindOf(stager.append(row('cut off')))
    await eventually(async () => {
      const [ended] = await sql`
        SELECT count(pg_terminate_backend(pid))::int AS ended FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'stager' AND state = 'active'`
      return ended?.ended > 0
    })
    expect(await append).toBe('outage')
  })
  expect(await kindOf(stager.append(row('next')))).toBe('staged')
  expect(await payloads()).toEqual(['next'])
})

test('a database that is away for less than a second is noticed by nobody', async () => {
  const name = database.location.database
  // Nobody can close the database to which he is connected.
  const url = { ...database.location, database: 'postgres' }
  const elsewhere = openPool({ url, name: 'elsewhere', connections: 1, statementTimeoutMs: 5_000 })
  expect(await kindOf(stager.append(row('before')))).toBe('staged')
  await elsewhere.unsafe(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`)
  await elsewhere`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'stager' AND datname = ${name}`
  const appends = Promise.all(['1', '2', '3'].map((payload) => kindOf(stager.append(row(payload)))))
  await elsewhere`SELECT pg_sleep(0.6)`
  await elsewhere.unsafe(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`)
  await closePool(elsewhere, 1000)
  expect(await appends).toEqual(['staged', 'staged', 'staged'])
  expect((await payloads()).toSorted()).toEqual(['1', '2', '3', 'before'])
})

test('while the database hangs nobody waits longer than 7 s, and those not begun are refused within 2 s', async () => {
  await sql.begin(async (blocking) => {
    await blocking`LOCK TABLE ingestion_queue IN ACCESS EXCLUSIVE MODE`
    const startedMs = performance.now()
    const timed = async (name: string) => ({
      kind: await kindOf(stager.append(row(name))),
      ms: performance.now() - startedMs,
    })
    const first = timed('first connection')
    // The first is no longer waited for.
    await wait(150)
    const second = timed('second connection')
    await wait(150)
    const answers = await Promise.all([first, second, timed('waits'), timed('waits too')])
    expect(answers.map(({ kind }) => kind)).toEqual(['outage', 'outage', 'outage', 'outage'])
    expect(answers[0]?.ms).toBeLessThan(7000)
    expect(answers[2]?.ms).toBeLessThan(2100)
    expect(answers[3]?.ms).toBeLessThan(2100)
  })
  // The server never asked for their bytes, so nothing of them can have been stored.
  expect(unknown).toBe(0)
  expect(await kindOf(stager.append(row('after')))).toBe('staged')
})

test('a commit that is given up half way is counted as unknown', async () => {
  await sql.unsafe(`
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(5.5); RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER INSERT ON ingestion_queue FOR EACH STATEMENT EXECUTE FUNCTION slow()`)
  try {
    expect(await kindOf(stager.append(row('who knows')))).toBe('outage')
    expect(unknown).toBe(1)
  } finally {
    await sql.unsafe('DROP TRIGGER slow ON ingestion_queue; DROP FUNCTION slow()')
  }
})

test('G7: a server that turned read-only is an outage, and no restart is needed when it takes writes again', async () => {
  const name = database.location.database
  expect(await kindOf(stager.append(row('before')))).toBe('staged')
  await sql.unsafe(`ALTER DATABASE ${name} SET default_transaction_read_only = on`)
  await sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stager' AND datname = ${name}`
  const kinds = [await kindOf(stager.append(row('1'))), await kindOf(stager.append(row('2')))]
  expect(kinds).toEqual(['outage', 'outage'])
  const writing = database.open({ connections: 1 })
  await writing.unsafe('SET default_transaction_read_only = off')
  await writing.unsafe(`ALTER DATABASE ${name} RESET default_transaction_read_only`)
  await closePool(writing, 1000)
  await eventually(async () => (await kindOf(stager.append(row('3')))) === 'staged')
})

test('G9: backends that are terminated all the time lose nothing that was confirmed', async () => {
  const confirmed: string[] = []
  let killing = true
  const killer = (async () => {
    while (killing) {
      await sql`
        SELECT pg_terminate_backend(pid), pg_sleep(0.02) FROM pg_stat_activity
        WHERE application_name = 'stager' AND datname = current_database()`
      await sql`SELECT pg_sleep(0.05)`
    }
  })()
  const kinds = { staged: 0, outage: 0 } as Record<string, number>
  for (let i = 0; i < 200; i++) {
    const kind = await kindOf(stager.append(row(`r${i}`)))
    kinds[kind] = (kinds[kind] ?? 0) + 1
    if (kind === 'staged') confirmed.push(`r${i}`)
    if (i % 50 === 0) await sql`SELECT pg_sleep(0.1)`
  }
  killing = false
  await killer
  expect(Object.keys(kinds).sort()).toEqual(['outage', 'staged'])
  const stored = await payloads()
  expect(confirmed.filter((name) => !stored.includes(name))).toEqual([])
  expect(new Set(stored).size).toBe(stored.length)
}, 90_000)
