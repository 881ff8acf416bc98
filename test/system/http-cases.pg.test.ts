import { readFileSync } from 'node:fs'
import { deflateRawSync, deflateSync, gunzipSync, zstdCompressSync } from 'node:zlib'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import {
  type Answer,
  head,
  JSON_TYPE,
  oneSpan,
  PROTOBUF,
  RawConnection,
  type Request,
  readStatus,
  send,
} from '../ingress/serve.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { type RunningSluice, startSluice } from './sluice.ts'

const BODY_BYTES_MAX = 1024 * 1024
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
let database: TestDatabase
let sluice: RunningSluice
let port: number
let sql: Sql

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
  // Without a worker what was accepted stays in the queue, where the tests look.
  sluice = await startSluice({ DATABASE_URL: database.databaseUrl, MAX_BODY_BYTES: String(BODY_BYTES_MAX) }, [
    '--role',
    'ingress',
  ])
  port = Number(new URL(sluice.url).port)
})
afterAll(async () => {
  expect(await sluice.process.terminate()).toBe(0)
  expect(sluice.process.strayLines).toEqual([])
  expect(sluice.process.log.filter(({ level }) => level === 'error')).toEqual([])
  await closePool(sql, 1000)
  await database.drop()
})
beforeEach(async () => {
  await sql`TRUNCATE ingestion_queue`
})

interface Staged {
  items: number
  encoding: number
  request_id: string
  payload: Buffer
}

/** What is in the queue, in the order of arrival. */
async function staged(): Promise<Staged[]> {
  return [
    ...(await sql<Staged[]>`SELECT items, encoding, request_id, payload FROM ingestion_queue ORDER BY id`),
  ]
}

async function statusesOf(requests: readonly Request[]): Promise<number[]> {
  const answers: Answer[] = []
  for (const request of requests) answers.push(await send(port, request))
  return answers.map(({ status }) => status)
}

/** A field that has a length, by its tag. */
function field(tag: readonly number[], content: Buffer): Buffer {
  const length: number[] = []
  for (let left = content.length; ; left >>>= 7) {
    length.push((left & 127) | (left > 127 ? 128 : 0))
    if (left <= 127) return Buffer.concat([Buffer.from([...tag, ...length]), content])
  }
}

const [FIELD_1, FIELD_2, FIELD_5, FIELD_15, FIELD_1000] = [[0x0a], [0x12], [0x2a], [0x7a], [0xc2, 0x3e]]

/** A span as a message of its own. */
const span = (name: Buffer) =>
  Buffer.concat([
    field(FIELD_1, Buffer.alloc(16, 7)),
    field(FIELD_2, Buffer.alloc(8, 7)),
    field(FIELD_5, name),
  ])

const requestOf = (name: Buffer) => field(FIELD_1, field(FIELD_2, field(FIELD_2, span(name))))

const payloadFile = (name: string) => readFileSync(new URL(`../payloads/${name}`, import.meta.url))
const json = (path: string, body: unknown): Request => ({
  path,
  headers: { 'content-type': JSON_TYPE },
  body: Buffer.from(JSON.stringify(body)),
})
const packed = (encoding: string, body: Buffer): Request => ({
  headers: { 'content-type': PROTOBUF, 'content-encoding': encoding },
  body,
})

test('B10: a body of exactly MAX_BODY_BYTES made of bad bytes in one string is stored with each of them replaced', async () => {
  const spare = 1000
  const overhead = requestOf(Buffer.alloc(BODY_BYTES_MAX - spare)).length - (BODY_BYTES_MAX - spare)
  const bad = Buffer.alloc(BODY_BYTES_MAX - overhead, 0xff)
  const body = requestOf(bad)
  expect(body.length).toBe(BODY_BYTES_MAX)
  expect((await send(port, { body })).status).toBe(200)
  const repaired = requestOf(Buffer.from('\ufffd'.repeat(bad.length)))
  const rows = await staged()
  expect(rows.map(({ items, encoding, payload }) => [items, encoding, payload.equals(repaired)])).toEqual([
    [1, 0, true],
  ])
  expect((await send(port, { body: Buffer.concat([body, Buffer.from([0x7a, 0])]) })).status).toBe(413)
})

test('B1: a request id that is not 1 to 128 printable ASCII characters is replaced by one of ours', async () => {
  const ids = ['é', '漢字', 'x'.repeat(129), 'tab\there', '']
  const answered: (string | undefined)[] = []
  for (const id of ids) {
    const connection = new RawConnection(port)
    // As its bytes stand on the wire, UTF-8.
    const line = Buffer.from(`X-Request-Id: ${id}`).toString('latin1')
    connection.write(head(`Content-Length: ${oneSpan.length}`, line)).write(oneSpan)
    const received = await connection.until(/^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\n/)
    answered.push(/X-Request-Id: (.*)\r\n/.exec(received)?.[1])
    connection.socket.destroy()
  }
  expect(answered.filter((id) => id === undefined || !uuid.test(id))).toEqual([])
  expect((await staged()).map(({ request_id }) => request_id)).toEqual(answered)
})

test('B1: a NUL or DEL in a header is no HTTP: 400 with an id of ours, and requests beside it are taken', async () => {
  for (const character of ['\0', '\x7f']) {
    const connection = new RawConnection(port)
    connection.write(head(`Content-Length: ${oneSpan.length}`, `X-Request-Id: a${character}b`)).write(oneSpan)
    const [received, beside] = await Promise.all([
      connection.until(/\r\n\r\n[\s\S]+/),
      send(port, { headers: { 'content-type': PROTOBUF, 'x-request-id': 'beside' }, body: oneSpan }),
    ])
    connection.socket.destroy()
    expect(received.split('\r\n')[0]).toBe('HTTP/1.1 400 Bad Request')
    expect(/X-Request-Id: (.*)\r\n/.exec(received)?.[1]).toMatch(uuid)
    expect(beside.status).toBe(200)
  }
  expect((await staged()).map(({ request_id }) => request_id)).toEqual(['beside', 'beside'])
})

test('B7: the request of one signal sent to the path of another is 400, in protobuf and in JSON', async () => {
  const names = ['traces', 'metrics', 'logs']
  const crossings = names.flatMap((sent) =>
    names
      .filter((path) => path !== sent)
      .map((path): Request => ({ path: `/v1/${path}`, body: payloadFile(`js-${sent}.pb`) })),
  )
  const asJson = ['/v1/metrics', '/v1/logs'].map(
    (path): Request => ({
      path,
      headers: { 'content-type': JSON_TYPE },
      body: payloadFile('js-traces.json'),
    }),
  )
  expect(await statusesOf([...crossings, ...asJson])).toEqual(Array(8).fill(400))
  expect(await staged()).toEqual([])
  expect(
    await statusesOf(names.map((path) => ({ path: `/v1/${path}`, body: payloadFile(`js-${path}.pb`) }))),
  ).toEqual([200, 200, 200])
})

test('B9: spans in the deprecated field 1000, and a request of unknown fields only, are stored byte for byte', async () => {
  const deprecated = field(FIELD_1, field(FIELD_1000, field(FIELD_2, span(Buffer.from('old')))))
  const unknown = Buffer.concat([field(FIELD_15, Buffer.from('a')), field(FIELD_1000, Buffer.from('b'))])
  expect(await statusesOf([{ body: deprecated }, { body: unknown }])).toEqual([200, 200])
  expect((await staged()).map(({ items, payload }) => [items, payload])).toEqual([
    [0, deprecated],
    [0, unknown],
  ])
})

test('A9: a body in snake_case is taken whole, and JSON of nothing but foreign keys is 400', async () => {
  const ids = { trace_id: '07'.repeat(16), span_id: '07'.repeat(8) }
  const snake = { resource_spans: [{ scope_spans: [{ spans: [{ ...ids, name: 'snake' }] }] }] }
  const taken = await send(port, json('/v1/traces', snake))
  const foreign = await send(port, json('/v1/traces', { batch: { spans: [{ name: 'a' }] }, version: 1 }))
  expect([taken.status, foreign.status, readStatus(foreign)]).toEqual([
    200,
    400,
    { code: 3, message: 'the request has none of the fields of its signal' },
  ])
  expect((await staged()).map(({ items, payload }) => [items, payload])).toEqual([
    [1, requestOf(Buffer.from('snake'))],
  ])
})

test('C5: deflate is taken raw and with a window of 2^9 bytes, and refused with a byte behind it', async () => {
  const body = requestOf(Buffer.from('deflated '.repeat(1000)))
  const small = deflateSync(body, { windowBits: 9 })
  expect(small[0]).toBe(0x18)
  const trailing = Buffer.concat([deflateSync(body), Buffer.from([0])])
  expect(
    await statusesOf([
      packed('deflate', deflateRawSync(body)),
      packed('deflate', small),
      packed('deflate', trailing),
    ]),
  ).toEqual([200, 200, 400])
  expect((await staged()).map(({ encoding, payload }) => [encoding, gunzipSync(payload)])).toEqual([
    [1, body],
    [1, body],
  ])
})

test('C2: all frames of a zstd body are read, skippable ones passed over, and anything else is 400', async () => {
  const [first, second] = [requestOf(Buffer.from('first')), requestOf(Buffer.from('second'))]
  const frame = zstdCompressSync(first)
  const skippable = Buffer.from('502a4d1802000000aabb', 'hex')
  const hugeWindow = Buffer.from('28b52ffd00a8010000', 'hex')
  const taken = [Buffer.concat([frame, zstdCompressSync(second)]), Buffer.concat([skippable, frame])]
  const refused = [Buffer.concat([frame, Buffer.from([0])]), hugeWindow]
  expect(await statusesOf([...taken, ...refused].map((body) => packed('zstd', body)))).toEqual([
    200, 200, 400, 400,
  ])
  expect((await staged()).map(({ items, payload }) => [items, gunzipSync(payload)])).toEqual([
    [2, Buffer.concat([first, second])],
    [1, first],
  ])
})

test('C2: a zstd frame that declares a window of 2 GB takes no memory', async () => {
  const residentBytes = async () => (await sluice.process.metrics()).get('process_resident_memory_bytes') ?? 0
  const before = await residentBytes()
  const requests = Array.from({ length: 20 }, () => packed('zstd', Buffer.from('28b52ffd00a8010000', 'hex')))
  const answers = await Promise.all(requests.map((request) => send(port, request)))
  expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(400))
  expect(before).toBeGreaterThan(0)
  expect((await residentBytes()) - before).toBeLessThan(64 * 1024 * 1024)
})
