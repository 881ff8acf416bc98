import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gunzipSync, gzipSync } from 'node:zlib'
import grpc from '@grpc/grpc-js'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { makeProfiles, type Profiled, readProfiles } from '../support/python.ts'
import { type RunningSluice, startSluice } from './sluice.ts'

let database: TestDatabase
let folder: string
let sql: Sql
let sluice: RunningSluice
let settings: Record<string, string>

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
  folder = await mkdtemp(join(tmpdir(), 'sluice-profiles-'))
  // Long enough for all requests of a test to be of one batch.
  settings = { DATABASE_URL: database.databaseUrl, DATA_DIR: folder, BATCH_FLUSH_INTERVAL_MS: '1500' }
  sluice = await startSluice(settings)
})
afterAll(async () => {
  expect(await sluice.process.terminate()).toBe(0)
  await closePool(sql, 1000)
  await database.drop()
  await rm(folder, { recursive: true })
})

/** The same two functions stand at other places of each dictionary. */
const seen: [Profiled, Profiled] = [
  {
    service: 'shop',
    binary: '/usr/bin/shop',
    samples: [
      [['main', 'serve', 'render'], 20_000_000],
      [['main', 'serve'], 10_000_000],
    ],
  },
  {
    service: 'cart',
    binary: '/usr/bin/cart',
    samples: [
      [['start', 'render', 'größe', 'main'], 7_000_000],
      [['start', 'serve'], 1],
    ],
  },
]

async function postProfiles(headers: Record<string, string>, body: Buffer): Promise<[number, string]> {
  const answer = await fetch(`${sluice.url}/v1development/profiles`, {
    method: 'POST',
    headers,
    body: new Uint8Array(body),
  })
  return [answer.status, await answer.text()]
}

async function callProfiles(body: Buffer): Promise<number> {
  const channel = new grpc.Client(sluice.grpcTarget, grpc.credentials.createInsecure())
  const raw = (bytes: Buffer) => bytes
  const { promise, resolve } = Promise.withResolvers<number>()
  const method = '/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export'
  channel.makeUnaryRequest(method, raw, raw, body, (error) => resolve(error?.code ?? grpc.status.OK))
  const code = await promise
  channel.close()
  return code
}

interface StoredProfile {
  key: string
  batch: string
  encoding: number
  requests: number
  items: number
  services: string[]
  time: string
}

async function storedProfiles(count: number): Promise<StoredProfile[]> {
  const read = () => sql<StoredProfile[]>`
    SELECT key, batch_id::text AS batch, encoding, requests, items::int AS items, services, min_time::text AS time
    FROM stored_object WHERE signal = 4 ORDER BY queue_ids[1]`
  await expect.poll(async () => (await read()).length, { timeout: 20_000 }).toBe(count)
  return read()
}

async function cat(key: string): Promise<unknown> {
  const main = join(import.meta.dirname, '../../src/main.ts')
  const { stdout } = await promisify(execFile)(process.execPath, [main, 'cat', key], {
    env: { PATH: process.env.PATH, ...settings },
  })
  return JSON.parse(stdout)
}

test('profiles of different dictionaries come to rest in objects of their own, and Python finds every stack again', async () => {
  const [shop, cart] = await makeProfiles(seen)
  if (shop === undefined || cart === undefined) throw new Error('Python made no profiles')
  const protobuf = { 'content-type': 'application/x-protobuf' }
  expect([
    await postProfiles(protobuf, shop.body),
    await postProfiles({ ...protobuf, 'content-encoding': 'gzip' }, gzipSync(cart.body)),
    await postProfiles({ 'content-type': 'application/json' }, Buffer.from(JSON.stringify(shop.json))),
    await callProfiles(cart.body),
  ]).toEqual([[200, ''], [200, ''], [200, '{}'], grpc.status.OK])

  const stored = await storedProfiles(4)
  expect(new Set(stored.map(({ batch }) => batch)).size).toBe(1)
  expect(stored.map(({ key, batch, time, ...rest }) => rest)).toEqual(
    ['shop', 'cart', 'shop', 'cart'].map((service, place) => ({
      encoding: place === 1 ? 1 : 0,
      requests: 1,
      items: 1,
      services: [service],
    })),
  )
  expect(new Set(stored.map(({ time }) => time.slice(0, 10)))).toEqual(new Set(['2025-10-09']))

  const objects = await Promise.all(
    stored.map(async ({ key, encoding }) => ({
      encoding: encoding === 1 ? ('gzip' as const) : ('identity' as const),
      body: await readFile(join(folder, 'objects', key)),
    })),
  )
  expect(objects.map(({ body, encoding }) => (encoding === 'gzip' ? gunzipSync(body) : body))).toEqual([
    shop.body,
    cart.body,
    expect.anything(),
    cart.body,
  ])
  const [first, second] = seen
  expect(await readProfiles(objects)).toEqual([[first], [second], [first], [second]])
  expect(await cat(stored[0]?.key ?? '')).toEqual(await cat(stored[2]?.key ?? ''))
})

test('a profile of another release than ours is stored as it came, and its service is known', async () => {
  const [made] = await makeProfiles(seen)
  if (made === undefined) throw new Error('Python made no profile')
  // In the dictionary, the field of the strings has become a number.
  const later = Buffer.concat([made.body, Buffer.from([0x12, 2, 0x28, 7])])
  expect(await postProfiles({ 'content-type': 'application/x-protobuf' }, later)).toEqual([200, ''])
  const stored = (await storedProfiles(5))[4]
  expect(stored).toMatchObject({ items: 1, services: ['shop'] })
  expect(await readFile(join(folder, 'objects', stored?.key ?? ''))).toEqual(later)
})
