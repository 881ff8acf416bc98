import { deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import {
  chunk,
  head,
  JSON_TYPE,
  lastChunk,
  oneSpan,
  PROTOBUF,
  RawConnection,
  readStatus,
  send,
  serveIngress,
  spanOfBytes,
} from './serve.ts'

const MIB = 1024 * 1024
const LIMIT = 20 * MIB
const encoders = { gzip: gzipSync, deflate: deflateSync, zstd: zstdCompressSync }
const packedAs = (encoding: string) => ({ 'content-type': PROTOBUF, 'content-encoding': encoding })

test('a body of exactly the limit is taken, one byte more is 413', async () => {
  await using ingress = await serveIngress()
  const fits = await send(ingress.port, { body: spanOfBytes(LIMIT) })
  const over = await send(ingress.port, { body: spanOfBytes(LIMIT + 1) })
  expect([fits.status, over.status, readStatus(over)]).toEqual([
    200,
    413,
    { code: 8, message: `the body is larger than ${LIMIT} bytes` },
  ])
})

test('C8: the limit counts the bytes that come in chunks: 20 MiB is taken, one byte more and 21 MiB are 413', async () => {
  await using ingress = await serveIngress()
  const statuses = []
  for (const bytes of [LIMIT, LIMIT + 1, LIMIT + MIB]) {
    const body = spanOfBytes(bytes)
    const connection = new RawConnection(ingress.port)
    connection.write(head('Transfer-Encoding: chunked'))
    for (let at = 0; at < body.length; at += 100_000) connection.write(chunk(body.subarray(at, at + 100_000)))
    const received = await connection.write(lastChunk).until(/\r\n\r\n/)
    statuses.push(received.slice(9, 12))
    connection.socket.destroy()
  }
  expect(statuses).toEqual(['200', '413', '413'])
  await expect.poll(() => ingress.budget.usedBytes).toBe(0)
})

for (const [encoding, encode] of Object.entries(encoders)) {
  test(`${encoding}: unpacked to exactly the limit is taken, one byte more is 413`, async () => {
    await using ingress = await serveIngress({ maxBodyBytes: MIB })
    const fits = await send(ingress.port, { headers: packedAs(encoding), body: encode(spanOfBytes(MIB)) })
    const over = await send(ingress.port, { headers: packedAs(encoding), body: encode(spanOfBytes(MIB + 1)) })
    expect([fits.status, over.status, readStatus(over)]).toEqual([
      200,
      413,
      { code: 8, message: `the body is larger than ${MIB} bytes when unpacked` },
    ])
  })

  test(`${encoding}: forty bombs at once are refused, and give back every byte`, async () => {
    await using ingress = await serveIngress()
    const bomb = encode(Buffer.alloc(100 * MIB))
    const answers = await Promise.all(
      Array.from({ length: 40 }, () => send(ingress.port, { headers: packedAs(encoding), body: bomb })),
    )
    const statuses = new Set(answers.map(({ status }) => status))
    statuses.delete(503) // The budget was used up by the other bombs: come again.
    expect([...statuses]).toEqual([413])
    expect(ingress.budget.usedBytes).toBe(0)
  })
}

test('a packed body that is over the limit as it was sent is 413, whatever would come out', async () => {
  await using ingress = await serveIngress({ maxBodyBytes: MIB })
  // Level 0 makes it larger.
  const over = await send(ingress.port, {
    headers: packedAs('gzip'),
    body: gzipSync(spanOfBytes(MIB), { level: 0 }),
  })
  expect([over.status, readStatus(over)]).toEqual([
    413,
    { code: 8, message: `the body is larger than ${MIB} bytes` },
  ])
})

test('two gzip members of which the last says little are still unpacked whole', async () => {
  await using ingress = await serveIngress()
  const body = Buffer.concat([gzipSync(spanOfBytes(3 * MIB)), gzipSync(oneSpan)])
  const { status } = await send(ingress.port, { headers: packedAs('gzip'), body })
  const [row] = ingress.stager.rows
  expect([status, row?.items, row?.unpackedBytes, row?.payload.equals(body)]).toEqual([
    200,
    2,
    3 * MIB + oneSpan.length,
    true,
  ])
})

test('requests beyond the in-flight bytes are 503, and the bytes come back when the others are answered', async () => {
  await using ingress = await serveIngress({ inflightBytes: 10 * MIB })
  const release = ingress.stager.hold()
  const taken = Array.from({ length: 4 }, () => send(ingress.port, { body: spanOfBytes(2 * MIB) }))
  await ingress.stager.whenAppended(4)
  expect(ingress.budget.usedBytes).toBe(8 * MIB)
  const refused = await send(ingress.port, { body: spanOfBytes(3 * MIB) })
  release()
  expect([refused.status, ...(await Promise.all(taken)).map(({ status }) => status)]).toEqual([
    503, 200, 200, 200, 200,
  ])
  expect(ingress.budget.usedBytes).toBe(0)
  const after = await send(ingress.port, { body: spanOfBytes(3 * MIB) })
  expect(after.status).toBe(200)
  expect(ingress.lines().map(({ event }) => event)).toEqual(['in_flight_full'])
})

test('what a compressed body becomes counts as in flight too', async () => {
  await using ingress = await serveIngress({ inflightBytes: 10 * MIB })
  const body = gzipSync(spanOfBytes(9 * MIB))
  const release = ingress.stager.hold()
  const first = send(ingress.port, { headers: packedAs('gzip'), body })
  await ingress.stager.whenAppended(1)
  expect(ingress.budget.usedBytes).toBe(9 * MIB + body.length)
  const second = await send(ingress.port, { headers: packedAs('gzip'), body })
  release()
  expect([second.status, (await first).status, ingress.budget.usedBytes]).toEqual([503, 200, 0])
})

test('the largest request that grows the most has room when it is alone: packed JSON of nothing but bucket counts', async () => {
  const limit = MIB
  await using ingress = await serveIngress({ maxBodyBytes: limit, inflightBytes: 6 * limit })
  const [start, end] = [
    '{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","histogram":{"aggregationTemporality":2,"dataPoints":[{"bucketCounts":[1',
    ']}]}}]}]}]}',
  ]
  const counts = Math.floor((limit - 200 - start.length - end.length) / 2)
  // Level 0 packs without making anything smaller.
  const body = gzipSync(start + ',1'.repeat(counts) + end, { level: 0 })
  const release = ingress.stager.hold()
  const answer = send(ingress.port, {
    path: '/v1/metrics',
    headers: { 'content-type': JSON_TYPE, 'content-encoding': 'gzip' },
    body,
  })
  await ingress.stager.whenAppended(1)
  const held = ingress.budget.usedBytes / limit
  release()
  expect([(await answer).status, ingress.stager.rows[0]?.items]).toEqual([200, 1])
  expect(held).toBeGreaterThan(5.99)
  expect(held).toBeLessThanOrEqual(6)
})

test('the largest request of bad bytes has room when it is alone, and is stored three times as long', async () => {
  await using ingress = await serveIngress({ maxBodyBytes: MIB, inflightBytes: 6 * MIB })
  const body = spanOfBytes(MIB)
  body.fill(0xff, body.length - MIB + 200)
  const packed = await send(ingress.port, {
    headers: packedAs('gzip'),
    body: gzipSync(body),
  })
  const plain = await send(ingress.port, { body })
  expect([packed.status, plain.status, ingress.budget.usedBytes]).toEqual([200, 200, 0])
  for (const { unpackedBytes } of ingress.stager.rows) expect(unpackedBytes / MIB).toBeGreaterThan(2.99)
})

test('what would make a larger row than can be read again is 413 with its size, and is not staged', async () => {
  await using ingress = await serveIngress({ maxBodyBytes: 512 * MIB, inflightBytes: 4096 * MIB })
  // One unknown field, whose content nobody looks at.
  const body = Buffer.alloc(256 * MIB)
  body[0] = 0x7a
  const content = body.length - 6
  for (let at = 0; at < 5; at++) body[1 + at] = ((content / 2 ** (7 * at)) & 0x7f) | (at < 4 ? 0x80 : 0)
  const answer = await send(ingress.port, { body })
  expect([answer.status, readStatus(answer), ingress.stager.appended]).toEqual([
    413,
    { code: 8, message: 'the request would be stored as 268435456 bytes; a row holds at most 267386880' },
    0,
  ])
})
