import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { exitCodes } from '../../src/cli/exit-codes.ts'
import { Progress } from '../../src/cli/progress.ts'
import { type SweepOptions, sweepCommand } from '../../src/cli/verify/sweep-command.ts'
import { type Finding, Verification, type VerifyOptions } from '../../src/cli/verify/verify.ts'
import { verifyCommand } from '../../src/cli/verify/verify-command.ts'
import { systemClock } from '../../src/foundation/clock.ts'
import { Failure } from '../../src/foundation/failure.ts'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { claimBatch } from '../../src/queue/claim-batch.ts'
import { releaseBatch } from '../../src/queue/settle.ts'
import { openFolderStore } from '../../src/sink/folder-store.ts'
import { openMinioStore } from '../../src/sink/minio-store.ts'
import { checksumOf, objectKey } from '../../src/sink/object-key.ts'
import type { ObjectStore } from '../../src/sink/object-store.ts'
import { createLogger } from '../../src/telemetry/log.ts'
import { row, stageAll } from '../queue/rows.ts'
import { startRelay } from '../relay/fixture.ts'
import { type RunningMinio, startMinio } from '../support/minio.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { spanRequest } from '../system/sluice.ts'

const prefix = 'a+b&c/'
let minio: RunningMinio
let database: TestDatabase
let sql: Sql
let store: ObjectStore
let places = 0

beforeAll(async () => {
  minio = await startMinio()
  database = await cloneDatabase()
  sql = database.open({ connections: 1 })
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
  await minio.stop()
})

interface Verified {
  exitCode: number
  findings: Finding[]
  objects: Record<string, { objects: number; bytes: number }>
}

const quiet = { write: () => undefined }

async function verify(changes: Partial<VerifyOptions> = {}, objects = store): Promise<Verified> {
  const progress = new Progress(systemClock, quiet)
  const options = { keyPrefix: prefix, since: undefined, isFast: false, clock: systemClock, progress }
  let text = ''
  const print = async (piece: string) => {
    text += piece
  }
  const verification = new Verification(sql, objects, { ...options, ...changes })
  const exitCode = await verifyCommand(verification, { json: true, print })
  return { exitCode, ...JSON.parse(text) }
}

/** How many objects were found to be what, without those of which there are none. */
const counts = ({ objects }: Verified) =>
  Object.fromEntries(
    Object.entries(objects).flatMap(([what, tally]) => (tally.objects === 0 ? [] : [[what, tally.objects]])),
  )

/** Runs it an hour from now, when nothing is young any more. */
async function sweep(
  changes: Partial<SweepOptions> = {},
  { objects = store, inHours = 1 } = {},
): Promise<{ exitCode: number; keys: string[]; deleted: boolean; young: number }> {
  let text = ''
  const clock = { ...systemClock, wallMs: () => systemClock.wallMs() + inHours * 3_600_000 }
  const exitCode = await sweepCommand(
    {
      sql,
      store: objects,
      keyPrefix: prefix,
      leaseSeconds: 60,
      clock,
      log: createLogger({ level: 'silent', clock }),
      progress: new Progress(clock, quiet),
      print: async (piece) => {
        text += piece
      },
    },
    { unknown: true, yes: false, json: true, ...changes },
  )
  return { exitCode, ...JSON.parse(text) }
}

const request = (name: string) => protobufFromJson('traces', spanRequest(name).body)

/** Stores these many requests as the relay does: half of them gzip, in batches of ten. */
async function storeRequests(count: number): Promise<void> {
  const rows = Array.from({ length: count }, (_, number) => {
    const bytes = request(`span ${number}`)
    const encoding = number % 2 === 0 ? 'gzip' : 'identity'
    return row(encoding === 'gzip' ? gzipSync(bytes) : bytes, { encoding, unpackedBytes: bytes.length })
  })
  await stageAll(database, rows)
  const relay = await startRelay(database, store, { keyPrefix: prefix, batchRowsMax: 10 })
  try {
    const waiting = async () => (await sql`SELECT count(*)::int AS rows FROM ingestion_queue`)[0]?.rows
    await expect.poll(waiting, { timeout: 20_000, interval: 20 }).toBe(0)
  } finally {
    await relay.stop()
  }
}

const storedKeys = async () =>
  (await sql<{ key: string }[]>`SELECT key FROM stored_object ORDER BY key`).map(({ key }) => key)

async function keysInStore(): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of store.list('')) keys.push(key)
  return keys.sort()
}

async function put(key: string, text = 'x'): Promise<void> {
  await store.put(key, Buffer.from(text), checksumOf(Buffer.from(text)))
}

const keyOf = (number: number, changes: { prefix?: string } = {}) =>
  objectKey({
    prefix,
    signal: 'logs',
    tenant: 'default',
    encoding: 'identity',
    batchId: `01a210cc-5850-7602-b479-${String(number).padStart(12, '0')}`,
    ...changes,
  })

/** Puts other bytes in the place of an object. */
async function replace(key: string, change: (body: Buffer) => Buffer): Promise<void> {
  const body = change((await store.get(key)) ?? Buffer.alloc(0))
  await store.remove(key)
  await store.put(key, body, checksumOf(body))
}

const kinds: [string, () => Promise<{ opened: ObjectStore; leave: () => Promise<void> }>][] = [
  [
    'MinIO',
    async () => ({
      opened: openMinioStore({ ...minio, bucket: `verify-${++places}`, region: undefined }),
      leave: async () => undefined,
    }),
  ],
  [
    'a folder',
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'sluice-verify-'))
      return { opened: openFolderStore({ folder }), leave: () => rm(folder, { recursive: true }) }
    },
  ],
]

describe.each(kinds)('with %s', (_, open) => {
  let leave: () => Promise<void>
  beforeEach(async () => {
    await sql`TRUNCATE ingestion_queue, ingestion_batch, abandoned_batch, stored_object, trace_index`
    const place = await open()
    store = place.opened
    leave = place.leave
    await store.prepare()
  })
  afterEach(async () => {
    await store.close()
    await leave()
  })

  test('what was stored is right, and what is at work is in flight', async () => {
    await storeRequests(60)
    await stageAll(database, [row('processing'), row('given up')])
    const claim = { owner: 'test', leaseSeconds: 60, rowsMax: 1, bytesMax: 1_000_000, firstAnySize: true }
    for (const name of ['processing', 'given up']) {
      const batch = await claimBatch(sql, claim)
      if (batch === undefined) throw new Error('nothing was claimed')
      const { batchId } = batch
      const key = objectKey({ prefix, signal: 'traces', tenant: 'default', encoding: 'identity', batchId })
      await put(key, name)
      if (name === 'given up') await releaseBatch(sql, batch, [key])
    }
    for (const isFast of [false, true]) {
      const verified = await verify({ isFast })
      expect(counts(verified)).toEqual({ right: (await storedKeys()).length, 'in flight': 2 })
      expect(verified).toMatchObject({ exitCode: exitCodes.ok, findings: [] })
    }
    expect((await storedKeys()).length).toBeGreaterThanOrEqual(12)
  })

  test('each fault is found and named, and so is what is unknown and what is not ours', async () => {
    await storeRequests(60)
    const [missing, size, checksum, items, offsets, ...right] = (await storedKeys()) as [
      string,
      string,
      string,
      string,
      string,
      ...string[],
    ]
    await store.remove(missing)
    await replace(size, (body) => Buffer.concat([body, Buffer.from('\0')]))
    await replace(checksum, (body) => Buffer.from(body).fill(1, body.length - 1))
    await sql`UPDATE stored_object SET items = items + 1 WHERE key = ${items}`
    await sql`UPDATE stored_object SET offsets[2] = offsets[2] + 1 WHERE key = ${offsets}`
    await put(keyOf(1))
    await put(`${prefix}notes.txt`)
    await put('logs/outside')
    await put(keyOf(1, { prefix: 'another/' }))
    const verified = await verify()
    expect(counts(verified)).toEqual({
      right: right.length,
      missing: 1,
      size: 1,
      checksum: 1,
      content: 2,
      unknown: 1,
      'not ours': 1,
    })
    expect(Object.fromEntries(verified.findings.map(({ key, what }) => [key, what]))).toEqual({
      [missing]: 'missing',
      [size]: 'size',
      [checksum]: 'checksum',
      [items]: 'content',
      [offsets]: 'content',
      [keyOf(1)]: 'unknown',
    })
    expect(verified.exitCode).toBe(exitCodes.wrong)
    expect(counts(await verify({ isFast: true }))).toMatchObject({ missing: 1, size: 1, checksum: 1 })
  })

  test('only what is unknown has an exit code of its own; since leaves out what is older', async () => {
    await storeRequests(10)
    await put(keyOf(1))
    expect(await verify()).toMatchObject({ exitCode: exitCodes.unknown, findings: [{ what: 'unknown' }] })
    const since = new Date(systemClock.wallMs() + 60_000)
    expect(counts(await verify({ since }))).toEqual({})
    expect(counts(await verify({ since: new Date(0) }))).toEqual({
      right: (await storedKeys()).length,
      unknown: 1,
    })
  })

  test('unknown objects are deleted with --yes alone, and only if they are old, ours by name, and below the prefix', async () => {
    await storeRequests(20)
    const strangers = [
      ...['00012', 'a&b', 'a+b', 'a b', 'é', '%2e'].map((tenant) =>
        keyOf(1).replace('tenant=default', `tenant=${tenant}`).replace(/_0.*/, '.binpb'),
      ),
      ...['a&b', 'a+b', 'a b', 'é', '%2e'].map((tenant) =>
        keyOf(2).replace('tenant=default', `tenant=${tenant}`),
      ),
      `${prefix}notes.txt`,
      'logs/outside',
      keyOf(1, { prefix: 'another/' }),
      keyOf(1, { prefix: '' }),
    ]
    for (const key of strangers) await put(key)
    const before = await keysInStore()
    const unknown = [keyOf(1), keyOf(2)]
    for (const key of unknown) await put(key)
    expect(await sweep()).toEqual({ exitCode: 0, keys: unknown, deleted: false, young: 0 })
    expect(await sweep({ yes: true }, { inHours: 0 })).toMatchObject({ keys: [], young: 2 })
    expect(await keysInStore()).toEqual([...before, ...unknown].sort())
    expect((await sweep({ yes: true })).keys.sort()).toEqual(unknown)
    expect(await keysInStore()).toEqual(before)
    expect(await verify()).toMatchObject({ exitCode: exitCodes.ok })
  })

  test('an object that the catalog comes to name, or a batch to own, after it was listed is not deleted', async () => {
    await storeRequests(10)
    const [named, owned] = [keyOf(1), keyOf(2)]
    await put(named)
    await put(owned)
    const halfway: ObjectStore = Object.create(store)
    halfway.list = (...args) => store.list(...args)
    halfway.stat = async (key, signal) => {
      const info = await store.stat(key, signal)
      if (key === named) {
        await sql`UPDATE stored_object SET key = ${named} WHERE key = (SELECT min(key) FROM stored_object)`
      } else {
        await sql`
          INSERT INTO ingestion_batch (batch_id, lease_token, lease_until, claimed_at, bytes, rows, status, lease_owner)
          VALUES ('01a210cc-5850-7602-b479-000000000002', gen_random_uuid(), now(), now(), 1, 1, 'processing', 'x')`
      }
      return info
    }
    expect(await sweep({ yes: true }, { objects: halfway })).toMatchObject({ keys: [] })
    expect(await keysInStore()).toEqual(expect.arrayContaining([named, owned]))
  })

  test('a database that knows none of the objects deletes none of them', async () => {
    await put(keyOf(1))
    await expect(sweep({ yes: true })).rejects.toThrow(/knows none of the 1 object in/)
    expect(await keysInStore()).toEqual([keyOf(1)])
  })

  test('an object that cannot be read is one finding; a store that gives none is an outage', async () => {
    await storeRequests(60)
    const [first] = await storedKeys()
    const broken: ObjectStore = Object.create(store)
    broken.list = (...args) => store.list(...args)
    broken.stat = (...args) => store.stat(...args)
    broken.get = async (key, range, signal) => {
      if (key === first) throw new Failure('outage', 'Input/output error')
      return await store.get(key, range, signal)
    }
    const verified = await verify({}, broken)
    expect(verified).toMatchObject({
      exitCode: exitCodes.wrong,
      findings: [{ what: 'unreadable', key: first }],
    })
    broken.get = async () => {
      throw new Failure('outage', 'away')
    }
    await expect(verify({}, broken)).rejects.toMatchObject({ kind: 'outage' })
  })
})

/** Unknown objects beside those of the catalog: all of the former are deleted and none of the latter. */
async function sweepAmong(count: number, putAll: (keys: readonly string[]) => Promise<void>): Promise<void> {
  await sql`TRUNCATE ingestion_queue, ingestion_batch, abandoned_batch, stored_object, trace_index`
  await store.prepare()
  await storeRequests(20)
  const known = await keysInStore()
  await putAll(Array.from({ length: count }, (_, number) => keyOf(number)))
  expect(counts(await verify())).toEqual({ right: known.length, unknown: count })
  expect((await sweep({ yes: true })).keys).toHaveLength(count)
  expect(await keysInStore()).toEqual(known)
  await store.close()
}

test('H3: 1,050 unknown objects in a bucket are listed, found and deleted, and those of the catalog are not', async () => {
  store = openMinioStore({ ...minio, bucket: `verify-${++places}`, region: undefined })
  await sweepAmong(1_050, async (keys) => {
    for (let first = 0; first < keys.length; first += 50) {
      await Promise.all(keys.slice(first, first + 50).map((key) => put(key)))
    }
  })
}, 240_000)

test('H3: the same with 2,500 in a folder', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-verify-'))
  store = openFolderStore({ folder })
  await sweepAmong(2_500, async (keys) => {
    await put(keys[0] ?? '')
    for (const key of keys.slice(1)) await writeFile(join(folder, key), 'x')
  })
  await rm(folder, { recursive: true })
}, 240_000)

test('an object of many requests is read in pieces of 4 MiB, and each of them is checked', async () => {
  await sql`TRUNCATE ingestion_queue, ingestion_batch, abandoned_batch, stored_object, trace_index`
  store = openMinioStore({ ...minio, bucket: `verify-${++places}`, region: undefined })
  await store.prepare()
  const large = () => request('x'.repeat(500_000))
  await stageAll(
    database,
    Array.from({ length: 20 }, () => row(large())),
  )
  const relay = await startRelay(database, store, { keyPrefix: prefix, flushIntervalMs: 1000 })
  await expect
    .poll(async () => (await sql`SELECT FROM ingestion_queue`).length, { timeout: 20_000, interval: 50 })
    .toBe(0)
  await relay.stop()
  const reads: number[] = []
  const watched: ObjectStore = Object.create(store)
  watched.list = (...args) => store.list(...args)
  watched.get = async (key, range, signal) => {
    const bytes = await store.get(key, range, signal)
    reads.push(bytes?.length ?? 0)
    return bytes
  }
  expect(await verify({}, watched)).toMatchObject({ exitCode: exitCodes.ok })
  expect(Math.max(...reads)).toBeLessThanOrEqual(4 * 1024 * 1024)
  expect(reads.reduce((sum, bytes) => sum + bytes, 0)).toBeGreaterThan(20 * 500_000)
  await store.close()
}, 240_000)
