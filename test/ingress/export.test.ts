import { deflateSync, gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { type Signal, signals } from '../../src/otlp/signal.ts'
import { decodeSummary } from '../../src/otlp/summary.ts'
import { walk } from '../../src/otlp/walk.ts'
import { JSON_TYPE, oneSpan, PROTOBUF, payload, readResponse, send, serveIngress } from './serve.ts'

const packedAs = (encoding: string) => ({ 'content-type': PROTOBUF, 'content-encoding': encoding })
/** The same span with a byte in its name that is no UTF-8. */
const spoilt = Buffer.from(oneSpan)
spoilt[spoilt.length - 1] = 0xff

test('a protobuf body is staged as it came, with its count, size and summary', async () => {
  await using ingress = await serveIngress()
  const body = payload('js-traces.pb')
  await send(ingress.port, { headers: { 'content-type': PROTOBUF, 'x-request-id': 'r1' }, body })
  const [row] = ingress.stager.rows
  if (row === undefined) throw new Error('nothing was staged')
  const { summary, ...rest } = row
  expect(rest).toEqual({
    signal: 'traces',
    tenant: 'default',
    encoding: 'identity',
    items: 100,
    unpackedBytes: body.length,
    requestId: 'r1',
    payload: body,
  })
  expect(decodeSummary(summary)).toEqual(walk('traces', body).summary)
  expect(ingress.settled).toEqual([{ bytes: body.length, committed: true }])
})

test('a gzip body is staged byte for byte, also one of several members', async () => {
  await using ingress = await serveIngress()
  const bodies = [gzipSync(oneSpan, { level: 9 }), Buffer.concat([gzipSync(oneSpan), gzipSync(oneSpan)])]
  for (const body of bodies) await send(ingress.port, { headers: packedAs('gzip'), body })
  expect(
    ingress.stager.rows.map(({ encoding, payload: kept, unpackedBytes }) => [encoding, kept, unpackedBytes]),
  ).toEqual([
    ['gzip', bodies[0], oneSpan.length],
    ['gzip', bodies[1], 2 * oneSpan.length],
  ])
})

test('where all is packed, what came without an encoding is staged as gzip from 1 KiB on, and says its own size', async () => {
  await using ingress = await serveIngress({ packsAll: true })
  const body = payload('js-traces.pb')
  const json = payload('js-traces.json')
  await send(ingress.port, { headers: { 'content-type': PROTOBUF }, body })
  await send(ingress.port, { headers: { 'content-type': JSON_TYPE }, body: json })
  await send(ingress.port, { headers: { 'content-type': PROTOBUF }, body: oneSpan })
  const [packed, fromJson, short] = ingress.stager.rows
  if (packed === undefined || fromJson === undefined) throw new Error('nothing was staged')
  expect([packed.encoding, packed.unpackedBytes, gunzipSync(packed.payload)]).toEqual([
    'gzip',
    body.length,
    body,
  ])
  expect([fromJson.encoding, fromJson.items]).toEqual(['gzip', 100])
  expect(gunzipSync(fromJson.payload).length).toBe(fromJson.unpackedBytes)
  expect([short?.encoding, short?.payload]).toEqual(['identity', oneSpan])
  expect(ingress.settled[0]).toEqual({ bytes: packed.payload.length, committed: true })
  expect(ingress.budget.usedBytes).toBe(0)
})

test('deflate, zstd and repaired gzip bodies are packed again as gzip', async () => {
  await using ingress = await serveIngress()
  await send(ingress.port, { headers: packedAs('deflate'), body: deflateSync(oneSpan) })
  await send(ingress.port, { headers: packedAs('zstd'), body: zstdCompressSync(oneSpan) })
  await send(ingress.port, { headers: packedAs('gzip'), body: gzipSync(spoilt) })
  const repaired = walk('traces', spoilt).body
  expect(
    ingress.stager.rows.map(({ encoding, payload: kept, unpackedBytes }) => [
      encoding,
      gunzipSync(kept),
      unpackedBytes,
    ]),
  ).toEqual([
    ['gzip', oneSpan, oneSpan.length],
    ['gzip', oneSpan, oneSpan.length],
    ['gzip', repaired, repaired.length],
  ])
})

test('a gzip body with anything behind it is refused', async () => {
  await using ingress = await serveIngress()
  const good = gzipSync(oneSpan)
  const statuses = []
  for (const rest of [
    Buffer.alloc(8),
    Buffer.concat([Buffer.alloc(8), gzipSync(Buffer.from('junk'))]),
    Buffer.from('\n'),
  ]) {
    const { status } = await send(ingress.port, {
      headers: packedAs('gzip'),
      body: Buffer.concat([good, rest]),
    })
    statuses.push(status)
  }
  expect([statuses, ingress.stager.appended]).toEqual([[400, 400, 400], 0])
})

test('JSON is staged as protobuf, compressed if it came compressed', async () => {
  await using ingress = await serveIngress()
  const json = payload('js-traces.json')
  await send(ingress.port, { headers: { 'content-type': JSON_TYPE }, body: json })
  await send(ingress.port, {
    headers: { 'content-type': JSON_TYPE, 'content-encoding': 'gzip' },
    body: gzipSync(json),
  })
  const [plain, packed] = ingress.stager.rows
  if (plain === undefined || packed === undefined) throw new Error('nothing was staged')
  expect([plain.encoding, packed.encoding, plain.items, packed.items]).toEqual(['identity', 'gzip', 100, 100])
  expect(gunzipSync(packed.payload).equals(plain.payload)).toBe(true)
  expect(walk('traces', plain.payload).items).toBe(100)
})

test('a request that says nothing is a success and is not staged, in every form', async () => {
  const all = Object.keys(signals) as Signal[]
  await using ingress = await serveIngress({ signals: all })
  const said = []
  for (const { path } of Object.values(signals)) {
    const json = { 'content-type': JSON_TYPE }
    for (const request of [
      { body: Buffer.alloc(0) },
      { headers: packedAs('gzip'), body: Buffer.alloc(0) },
      { headers: packedAs('gzip'), body: gzipSync(Buffer.alloc(0)) },
      { headers: packedAs('zstd'), body: zstdCompressSync(Buffer.alloc(0)) },
      { headers: { 'content-type': PROTOBUF, 'transfer-encoding': 'chunked' } },
      { headers: json, body: Buffer.from('{}') },
      { headers: json, body: Buffer.from(' {\n} ') },
      { headers: { ...json, 'content-encoding': 'gzip' }, body: gzipSync('{}') },
    ]) {
      const { status, body } = await send(ingress.port, { path, ...request })
      said.push(`${status} ${body}`)
    }
  }
  const each = [...Array(5).fill('200 '), ...Array(3).fill('200 {}')]
  expect(said).toEqual(all.flatMap(() => each))
  expect(ingress.stager.appended).toBe(0)
})

test('a request of nothing but unknown fields is staged: it may be data of a sender newer or older than we', async () => {
  await using ingress = await serveIngress()
  // Field 1000 of ResourceSpans, where old SDKs put their spans, and an unknown field of the request itself.
  const deprecated = Buffer.concat([
    Buffer.from('0a', 'hex'),
    Buffer.from([5]),
    Buffer.from('c23e020800', 'hex'),
  ])
  const unknown = Buffer.from('7a0161', 'hex')
  for (const body of [deprecated, unknown]) expect((await send(ingress.port, { body })).status).toBe(200)
  expect(ingress.stager.rows.map(({ items, payload: kept }) => [items, kept])).toEqual([
    [0, deprecated],
    [0, unknown],
  ])
})

test('the count of what was dropped is that of the signal’s own items', async () => {
  await using ingress = await serveIngress()
  ingress.decide({ outcome: 'drop', policy: 'drop' })
  const counts = []
  for (const [path, file] of [
    ['/v1/traces', 'js-traces.pb'],
    ['/v1/metrics', 'js-metrics.pb'],
    ['/v1/logs', 'js-logs.pb'],
  ] as const) {
    const binary = await send(ingress.port, { path, body: payload(file) })
    const { partialSuccess } = readResponse(binary.body) as { partialSuccess: { rejected: number } }
    counts.push([path, partialSuccess.rejected])
  }
  const index = JSON.parse(payload('index.json').toString()) as { file: string; items: number }[]
  const items = (file: string) => index.find((entry) => entry.file === file)?.items
  expect(counts).toEqual([
    ['/v1/traces', items('js-traces.pb')],
    ['/v1/metrics', items('js-metrics.pb')],
    ['/v1/logs', items('js-logs.pb')],
  ])
})

test('the overflow policy hears once of every admitted request whether it was committed', async () => {
  await using ingress = await serveIngress()
  const failures = [undefined, new Failure('outage', 'away'), new Failure('data', 'no'), new Error('bug')]
  const statuses = []
  for (const failure of failures) {
    ingress.stager.failure = failure
    statuses.push((await send(ingress.port, { body: oneSpan })).status)
  }
  expect(statuses).toEqual([200, 503, 400, 503])
  expect(ingress.settled).toEqual(
    [true, false, false, false].map((committed) => ({ bytes: oneSpan.length, committed })),
  )
})

test('requests, items and bytes are counted by signal and outcome', async () => {
  await using ingress = await serveIngress()
  await send(ingress.port, { body: payload('js-traces.pb') })
  await send(ingress.port, { path: '/v1/logs', body: Buffer.from('1234') })
  await send(ingress.port, { path: '/nope', body: oneSpan })
  const values = async (name: string) =>
    (await ingress.metrics.registry.getSingleMetric(name)?.get())?.values
      .filter(({ value }) => value > 0)
      .map(({ labels, value }) => [labels, value])
  expect(await values('sluice_requests_total')).toEqual([
    [{ signal: 'traces', transport: 'http', outcome: 'accepted' }, 1],
    [{ signal: 'logs', transport: 'http', outcome: 'malformed' }, 1],
    [{ signal: 'none', transport: 'http', outcome: 'unknown_path' }, 1],
  ])
  expect(await values('sluice_staged_items_total')).toEqual([[{ signal: 'traces' }, 100]])
  expect(await values('sluice_request_bytes_total')).toEqual([
    [{ signal: 'traces' }, payload('js-traces.pb').length],
    [{ signal: 'logs' }, 4],
  ])
})
