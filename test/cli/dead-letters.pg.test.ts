import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { exportCommand } from '../../src/cli/dead-letters/export.ts'
import { listCommand } from '../../src/cli/dead-letters/list.ts'
import { discardCommand, replayCommand } from '../../src/cli/dead-letters/move.ts'
import { showCommand } from '../../src/cli/dead-letters/show.ts'
import { Progress } from '../../src/cli/progress.ts'
import { systemClock } from '../../src/foundation/clock.ts'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { row, stageAll } from '../queue/rows.ts'
import { manualClock } from '../support/clock.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { buryAll } from './bury.ts'

let database: TestDatabase
let sql: Sql
let folder: string
const backlogMax = { rows: 1000, bytes: 1e9 }
const how = { dryRun: false, json: true }

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
  folder = await mkdtemp(join(tmpdir(), 'sluice-dead-'))
  return () => rm(folder, { recursive: true, force: true })
})

function moving(clock = systemClock, said: string[] = []) {
  const write = (text: string) => said.push(text)
  return { sql, clock, progress: new Progress(clock, { write }) }
}

const span = (name: string) =>
  protobufFromJson(
    'traces',
    Buffer.from(JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans: [{ name }] }] }] })),
  )

/** Dead letters with the ids 1, 2 and 3: two of them OTLP, one not. */
async function threeDead(): Promise<void> {
  await stageAll(database, [
    row(span('first')),
    row(gzipSync(span('second')), { encoding: 'gzip', tenant: 'acme', unpackedBytes: span('second').length }),
    row('\xff\xff not OTLP', { signal: 'logs' }),
  ])
  await buryAll(sql, 'the store\nrefuses it')
}

async function countIn(table: string): Promise<number> {
  const [found] = await sql.unsafe<{ rows: number }[]>(`SELECT count(*)::int AS rows FROM ${table}`)
  return found?.rows ?? -1
}

test('the list shows the newest request first, says how many more there are, and where the next page begins', async () => {
  await threeDead()
  const page = await listCommand(sql, {}, { limit: 2, json: false })
  const [head, ...lines] = page.split('\n')
  expect(head?.split(/ +/)).toEqual([
    'id',
    'died',
    'signal',
    'tenant',
    'items',
    'bytes',
    'reason',
    'tries',
    'error',
  ])
  expect(lines[0]).toMatch(/^3 +\S+Z +logs +default +1 +\d+ B +data_refused +1 +the store refuses it$/)
  expect(lines[1]).toMatch(/^2 .* traces +acme /)
  expect(lines.at(-2)).toBe('2 of 3 shown; --before 2 shows those before.')
  const next = await listCommand(sql, {}, { limit: 2, before: 2n, json: true })
  expect((JSON.parse(next) as { id: string }[]).map(({ id }) => id)).toEqual(['1'])
  expect(await listCommand(sql, { tenant: 'nobody' }, { limit: 2, json: false })).toBe(
    'No dead letter fits.\n',
  )
})

test('one is shown with what is in it; bytes that cannot be read are said to be so', async () => {
  await threeDead()
  const text = await showCommand(sql, 2n, { json: false })
  expect(text).toMatch(/^reason +data_refused$/m)
  expect(text).toMatch(/^last error +the store$/m)
  expect(text).toContain('"name": "second"')
  const json = JSON.parse((await showCommand(sql, 1n, { json: true })) ?? '')
  expect(json).toMatchObject({
    id: '1',
    requestId: 'request',
    request: { resourceSpans: [{ scopeSpans: [{ spans: [{ name: 'first' }] }] }] },
  })
  expect(json).not.toHaveProperty('payload')
  expect(JSON.parse((await showCommand(sql, 3n, { json: true })) ?? '')).toMatchObject({
    id: '3',
    requestError: expect.stringMatching(/./),
  })
  expect(await showCommand(sql, 3n, { json: false })).toContain('It cannot be read: ')
  expect(await showCommand(sql, 4n, { json: true })).toBeUndefined()
})

test('a dry run says what would happen and changes nothing', async () => {
  await threeDead()
  const dry = { dryRun: true, json: true }
  const wanted = { dryRun: true, found: 2, items: 2 }
  const filter = { signal: 'traces' } as const
  const to = join(folder, 'never')
  for (const { text } of [
    await replayCommand(moving(), filter, { ...dry, backlogMax }),
    await discardCommand(moving(), filter, { ...dry, yes: true, all: false }),
    await exportCommand(moving(), filter, { ...dry, to }),
  ]) {
    expect(JSON.parse(text)).toMatchObject(wanted)
  }
  expect(await countIn('dead_letter')).toBe(3)
  expect(await countIn('ingestion_queue')).toBe(0)
  await expect(stat(to)).rejects.toMatchObject({ code: 'ENOENT' })
})

test('where nothing fits, a report says so and is no dry run', async () => {
  const filter = { tenant: 'nobody' }
  const to = folder
  const reports = [
    await replayCommand(moving(), filter, { ...how, backlogMax }),
    await discardCommand(moving(), filter, { ...how, yes: false, all: false }),
    await exportCommand(moving(), filter, { ...how, to }),
  ]
  expect(reports.map(({ text }) => JSON.parse(text))).toEqual([
    { dryRun: false, found: 0, replayed: 0, bytes: 0 },
    { dryRun: false, found: 0, discarded: 0, bytes: 0 },
    { dryRun: false, found: 0, written: 0, bytes: 0, there: 0, folder },
  ])
  const sentence = await replayCommand(moving(), filter, { ...how, json: false, backlogMax })
  expect(sentence.text).toBe('No dead letter fits.\n')
})

test('nothing is discarded without a yes, nor everything without being asked for', async () => {
  await threeDead()
  const unsure = discardCommand(moving(), { ids: [1n] }, { ...how, yes: false, all: false })
  await expect(unsure).rejects.toMatchObject({
    kind: 'client',
    message: expect.stringContaining('1 dead letter '),
  })
  const careless = discardCommand(moving(), {}, { ...how, yes: true, all: false })
  await expect(careless).rejects.toMatchObject({ kind: 'client', message: expect.stringContaining('--all') })
  expect(await countIn('dead_letter')).toBe(3)
  const one = await discardCommand(moving(), { ids: [1n, 9n] }, { ...how, yes: true, all: false })
  expect(JSON.parse(one.text)).toEqual({ dryRun: false, found: 1, discarded: 1, bytes: span('first').length })
  const rest = await discardCommand(moving(), {}, { ...how, json: false, yes: true, all: true })
  expect(rest.text).toMatch(/^2 dead letters \(.* B\) discarded\.\n$/)
  expect(await countIn('dead_letter')).toBe(0)
})

test('a replay fills half of the queue, waits until workers have made room, and says so', async () => {
  await stageAll(
    database,
    Array.from({ length: 30 }, (_, i) => row(`${i}`)),
  )
  await buryAll(sql, 'e')
  const clock = manualClock()
  const said: string[] = []
  const replaying = replayCommand(moving(clock, said), {}, { ...how, backlogMax: { rows: 20, bytes: 1e9 } })
  for (let left = 20; left >= 0; left -= 10) {
    await expect.poll(() => countIn('dead_letter')).toBe(left)
    if (left === 0) break
    await expect.poll(() => clock.sleepers).toBe(1)
    expect(await countIn('ingestion_queue')).toBe(10)
    await clock.advance(3_000)
    await expect.poll(() => clock.sleepers).toBe(1)
    expect(await countIn('ingestion_queue')).toBe(10)
    await sql`DELETE FROM ingestion_queue`
    await clock.advance(500)
  }
  const { text } = await replaying
  expect(JSON.parse(text)).toEqual({ dryRun: false, found: 30, replayed: 30, bytes: 50 })
  expect(said[0]).toBe('10 of 30 replayed; the queue is half full: waiting for the workers\n')
})

test('a replay that fails says how far it came, and that it may be run again', async () => {
  await threeDead()
  await sql`
    INSERT INTO ingestion_queue (id, items, bytes, unpacked_bytes, signal, encoding, tenant, request_id, summary, payload)
    OVERRIDING SYSTEM VALUE VALUES (3, 1, 1, 1, 1, 0, 'default', 'r', '', '')`
  // Two rows of room: the first piece has the letters 1 and 2.
  const replaying = replayCommand(moving(), {}, { ...how, backlogMax: { rows: 6, bytes: 1e9 } })
  await expect.poll(() => countIn('dead_letter')).toBe(1)
  await sql`DELETE FROM ingestion_queue WHERE id < 3`
  await expect(replaying).rejects.toMatchObject({
    kind: 'data',
    message: expect.stringMatching(
      /duplicate key.*\. At least 2 were replayed before that; run it again for the rest\.$/,
    ),
  })
})

async function exported(): Promise<Record<string, string>> {
  const names = (await readdir(folder)).filter((name) => !name.endsWith('.jsonl')).sort()
  const contents = await Promise.all(names.map((name) => readFile(join(folder, name), 'base64')))
  return Object.fromEntries(names.map((name, index) => [name, contents[index] ?? '']))
}

async function index(): Promise<{ id: string; file: string }[]> {
  const lines = (await readFile(join(folder, 'dead-letters.jsonl'), 'utf8')).trimEnd().split('\n')
  return lines.map((line) => JSON.parse(line))
}

test('an export has the bytes of each letter as they were staged, and a line for each', async () => {
  await threeDead()
  const report = await exportCommand(moving(), {}, { ...how, to: folder })
  expect(JSON.parse(report.text)).toMatchObject({ found: 3, written: 3, there: 0, folder })
  const files = await exported()
  expect(Object.keys(files)).toEqual(['1.traces.binpb', '2.traces.binpb.gz', '3.logs.binpb'])
  expect(Buffer.from(files['1.traces.binpb'] ?? '', 'base64')).toEqual(span('first'))
  expect(gunzipSync(Buffer.from(files['2.traces.binpb.gz'] ?? '', 'base64'))).toEqual(span('second'))
  expect(await index()).toMatchObject([
    {
      id: '1',
      file: '1.traces.binpb',
      tenant: 'default',
      reason: 'data_refused',
      lastError: 'the store\nrefuses it',
    },
    { id: '2', file: '2.traces.binpb.gz', tenant: 'acme' },
    { id: '3', file: '3.logs.binpb', signal: 'logs' },
  ])
  expect(await countIn('dead_letter')).toBe(3)
})

test('an export that was cut short goes on where it ended, and one run twice writes nothing twice', async () => {
  await threeDead()
  await exportCommand(moving(), { ids: [1n] }, { ...how, to: folder })
  const before = await stat(join(folder, '1.traces.binpb'))
  // Killed in the middle of a file, and in the middle of a line.
  await writeFile(join(folder, '.2.traces.binpb.gz.half'), 'ha')
  const [line = ''] = (await readFile(join(folder, 'dead-letters.jsonl'), 'utf8')).split('\n')
  await writeFile(join(folder, 'dead-letters.jsonl'), `${line}\n{"id":"2","di`)
  const second = await exportCommand(moving(), {}, { ...how, to: folder })
  expect(JSON.parse(second.text)).toMatchObject({ found: 3, written: 2, there: 1 })
  const third = await exportCommand(moving(), {}, { ...how, to: folder })
  expect(JSON.parse(third.text)).toMatchObject({ found: 3, written: 0, there: 3 })
  const lines = (await readFile(join(folder, 'dead-letters.jsonl'), 'utf8')).split('\n')
  expect(lines.filter((one) => one.endsWith('}')).map((one) => JSON.parse(one).id)).toEqual(['1', '2', '3'])
  expect((await stat(join(folder, '1.traces.binpb'))).mtimeMs).toBe(before.mtimeMs)
  // A file that somebody has taken away is written again.
  await rm(join(folder, '3.logs.binpb'))
  await exportCommand(moving(), {}, { ...how, to: folder })
  expect(Object.keys(await exported())).toContain('3.logs.binpb')
  // The same request, dead a second time, is a line of its own.
  await replayCommand(moving(), { ids: [1n] }, { ...how, backlogMax })
  await buryAll(sql, 'again')
  await exportCommand(moving(), {}, { ...how, to: folder })
  const last = (await readFile(join(folder, 'dead-letters.jsonl'), 'utf8')).trimEnd().split('\n').at(-1) ?? ''
  expect(JSON.parse(last)).toMatchObject({ id: '1', lastError: 'again' })
})

test('a folder that cannot be written is named', async () => {
  await threeDead()
  const file = join(folder, 'file')
  await writeFile(file, '')
  await expect(exportCommand(moving(), {}, { ...how, to: join(file, 'below') })).rejects.toMatchObject({
    kind: 'configuration',
    message: expect.stringContaining(join(file, 'below')),
  })
})

test('progress is silent for two seconds, then said now and then, and over itself on a terminal', async () => {
  const clock = manualClock()
  const file: string[] = []
  const screen: string[] = []
  const streams = [
    new Progress(clock, { write: (text: string) => file.push(text) }),
    new Progress(clock, { isTTY: true, write: (text: string) => screen.push(text) }),
  ]
  for (let second = 0; second < 9; second++) {
    for (const progress of streams) progress.say(`${second}`)
    await clock.advance(1_000)
  }
  for (const progress of streams) progress.end()
  expect(file).toEqual(['2\n', '7\n'])
  expect(screen).toEqual([...[2, 3, 4, 5, 6, 7, 8].map((second) => `\r\x1b[K${second}`), '\r\x1b[K'])
})
