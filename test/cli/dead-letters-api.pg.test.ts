import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { deadLetterApi } from '../../src/cli/dead-letters/api.ts'
import { systemClock } from '../../src/foundation/clock.ts'
import { adminApp } from '../../src/ingress/admin.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { collectingLog } from '../ingress/serve.ts'
import { row, stageAll } from '../queue/rows.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { buryAll } from './bury.ts'

let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open({ connections: 2 })
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})
beforeEach(async () => {
  await sql`TRUNCATE ingestion_queue, ingestion_batch, dead_letter, stored_object, abandoned_batch RESTART IDENTITY`
})

function served({ backlogRowsMax = 1000, clock = systemClock } = {}) {
  const { log, lines } = collectingLog()
  const { gets, posts } = deadLetterApi({
    sql,
    backlogMax: { rows: backlogRowsMax, bytes: 1e9 },
    log,
    clock,
  })
  const well = async () => ({ ok: true, checks: {} })
  const app = adminApp({
    host: '127.0.0.1',
    token: undefined,
    ready: well,
    health: well,
    api: gets,
    posts,
    counts: async () => createMetrics().registry,
    log,
  })
  const get = async (path: string) => {
    const response = await app.request(`/api/v1/dead-letters${path}`)
    return [response.status, await response.json()]
  }
  const post = async (path: string, body: unknown) => {
    const response = await app.request(`/api/v1/dead-letters/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    return [response.status, await response.json()]
  }
  return { app, get, post, lines }
}

/** Dead letters with the ids from 1, of one byte each. */
async function dead(count: number): Promise<void> {
  const rows = Array.from({ length: count }, (_, i) =>
    row(`${i % 10}`, i % 2 === 0 ? {} : { tenant: 'acme' }),
  )
  await stageAll(database, rows)
  await buryAll(sql, 'refused')
}

async function countIn(table: string): Promise<number> {
  const [found] = await sql.unsafe<{ rows: number }[]>(`SELECT count(*)::int AS rows FROM ${table}`)
  return found?.rows ?? -1
}

test('the list has pages, filters and a total', async () => {
  await dead(5)
  const { get } = served()
  const first = await get('?limit=2&tenant=default')
  expect(first).toMatchObject([200, { deadLetters: [{ id: '5' }, { id: '3' }], total: 3, next: '3' }])
  const second = await get('?limit=2&tenant=default&before=3')
  expect(second).toMatchObject([
    200,
    { deadLetters: [{ id: '1', lastError: 'refused' }], total: 3, next: null },
  ])
  expect(await get('?reason=worker_lost&signal=traces&since=2026-01-01&until=2100-01-01')).toEqual([
    200,
    { deadLetters: [], total: 0, next: null },
  ])
})

test('one comes with its request or with why it cannot be read, and its bytes come as a file', async () => {
  const packed = gzipSync('not OTLP')
  await stageAll(database, [row(''), row(packed, { encoding: 'gzip', signal: 'logs' })])
  await buryAll(sql, 'e')
  const { app, get } = served()
  expect(await get('/1')).toMatchObject([200, { id: '1', request: {} }])
  expect(await get('/2')).toMatchObject([200, { id: '2', requestError: expect.stringMatching(/./) }])
  await sql`UPDATE dead_letter SET unpacked_bytes = 2000000 WHERE id = 2`
  expect(await get('/2')).toMatchObject([200, { requestError: expect.stringContaining('/2/payload') }])
  const response = await app.request('/api/v1/dead-letters/2/payload')
  expect(Buffer.from(await response.arrayBuffer())).toEqual(packed)
  expect(response.headers.get('content-type')).toBe('application/gzip')
  expect(response.headers.get('content-encoding')).toBeNull()
  expect(response.headers.get('content-disposition')).toBe('attachment; filename="2.logs.binpb.gz"')
  expect((await get('/3'))[0]).toBe(404)
  expect((await get('/3/payload'))[0]).toBe(404)
})

test('a replay goes on where the one before ended when the queue was half full', async () => {
  await dead(25)
  const { post, lines } = served({ backlogRowsMax: 20 })
  expect(await post('replay', { dryRun: true })).toEqual([
    200,
    { dryRun: true, found: 25, items: 25, bytes: 25 },
  ])
  const first = await post('replay', {})
  expect(first).toEqual([
    200,
    { dryRun: false, found: 25, replayed: 10, bytes: 10, next: '10', queueFull: true },
  ])
  expect(await post('replay', { after: '10' })).toMatchObject([
    200,
    { replayed: 0, next: '10', queueFull: true },
  ])
  await sql`DELETE FROM ingestion_queue`
  expect(await post('replay', { after: 10, tenant: 'acme' })).toMatchObject([
    200,
    { found: 7, replayed: 7, next: null, queueFull: false },
  ])
  await sql`DELETE FROM ingestion_queue`
  expect(await post('replay', { ids: [11, '13', 12] })).toMatchObject([
    200,
    { found: 2, replayed: 2, next: null },
  ])
  expect(await countIn('dead_letter')).toBe(6)
  expect(lines().map(({ event, rows }) => [event, rows])).toEqual([
    ['dead_letters_replayed', 10],
    ['dead_letters_replayed', 7],
    ['dead_letters_replayed', 2],
  ])
})

test('a discard deletes what it is told to, and everything only by that name', async () => {
  await dead(6)
  const { post, lines } = served()
  expect(await post('discard', {})).toEqual([400, { error: expect.stringContaining('"all": true') }])
  expect(await post('discard', { ids: [1], dryRun: true })).toMatchObject([200, { dryRun: true, found: 1 }])
  expect(await countIn('dead_letter')).toBe(6)
  expect(await post('discard', { ids: [] })).toMatchObject([200, { found: 0, discarded: 0 }])
  expect(await post('discard', { ids: [1, 2] })).toEqual([
    200,
    { dryRun: false, found: 2, discarded: 2, bytes: 2, next: null },
  ])
  expect(await post('discard', { all: true })).toMatchObject([200, { discarded: 4, next: null }])
  expect(await countIn('dead_letter')).toBe(0)
  expect(lines().map(({ event }) => event)).toEqual(['dead_letters_discarded', 'dead_letters_discarded'])
})

test('a request whose time is up answers after the piece in hand, and says where to go on', async () => {
  await sql.unsafe(`
    INSERT INTO dead_letter (id, received_at, batch_id, items, bytes, unpacked_bytes, attempts, signal, encoding, tenant,
      request_id, reason, summary, payload)
    SELECT n, now(), gen_random_uuid(), 1, 1, 1, 1, 1, 0, 'default', 'r', 'data_refused', '', 'x'
    FROM generate_series(1, 2500) AS n`)
  const { post } = served({ clock: { ...systemClock, deadline: () => AbortSignal.abort() } })
  expect(await post('replay', {})).toMatchObject([200, { replayed: 100, next: '100', queueFull: false }])
  const rest = { all: true, after: '100' }
  expect(await post('discard', rest)).toMatchObject([200, { found: 2400, discarded: 1000, next: '1100' }])
  expect(await post('discard', { ...rest, after: '1100' })).toMatchObject([
    200,
    { discarded: 1000, next: '2100' },
  ])
  expect(await post('discard', { ...rest, after: '2100' })).toMatchObject([
    200,
    { discarded: 400, next: null },
  ])
})

test('what is asked wrongly is 400 and changes nothing', async () => {
  await dead(1)
  const { get, post } = served()
  const answers = [
    await get('/abc'),
    await get('/0'),
    await get('/9223372036854775808'),
    await get('?limit=0'),
    await get('?since=yesterday'),
    await get('?signal=spans'),
    await get('?tennant=acme'),
    await post('replay', { ids: 'all' }),
    await post('replay', { ids: [1.5] }),
    await post('discard', { tennant: 'acme', all: true }),
    await post('discard', { reason: 'bored' }),
    await post('discard', null),
    await post('discard', [1]),
  ]
  expect(answers.map(([status]) => status)).toEqual(answers.map(() => 400))
  expect(answers[0]).toEqual([400, { error: 'must be a whole number from 1 to 9223372036854775807' }])
  expect(answers[4]).toEqual([400, { error: 'since: must be a time like 2026-01-31T12:00:00Z' }])
  expect(answers[6]).toEqual([400, { error: expect.stringContaining('tennant') }])
  expect(await countIn('dead_letter')).toBe(1)
})
