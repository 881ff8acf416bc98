import { deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { startGrpcProcess } from './grpc-process.ts'
import {
  asSuccess,
  beginCall,
  connectHttp2,
  exportPathOf,
  framed,
  fullSuccess,
  GrpcJsClient,
  inShort,
  type Session,
  serveGrpc,
} from './grpc-serve.ts'
import { oneSpan, spanOfBytes } from './serve.ts'

const MB = 1024 * 1024
const twoGigabytesDeclared = Buffer.from('007fffffff', 'hex')

async function connectMany(port: number, count: number): Promise<Session[]> {
  return await Promise.all(Array.from({ length: count }, () => connectHttp2(port)))
}

describe('E6: the limit of a message', () => {
  test('E6: 2 GB declared in five bytes are refused when the five have come', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    for (const flag of [0, 1]) {
      const start = Buffer.from(twoGigabytesDeclared)
      start[0] = flag
      const { reply } = beginCall(session, { headers: { 'grpc-encoding': 'gzip' }, body: start, open: true })
      expect(inShort(await reply)).toEqual({
        status: 8,
        trailersOnly: true,
        message: 'the body is larger than 20971520 bytes',
      })
    }
    expect(ingress.budget.usedBytes).toBe(0)
  })

  test('E6: a message of exactly the limit is taken from a client of grpc-js, one of a byte more is refused', async () => {
    await using ingress = await serveGrpc()
    await using client = new GrpcJsClient(ingress.port)
    const atLimit = spanOfBytes(20 * MB)
    expect((await client.call(exportPathOf('traces'), atLimit)).code).toBe(0)
    expect(ingress.stager.rows.map(({ payload: staged }) => staged.equals(atLimit))).toEqual([true])
    const over = await client.call(exportPathOf('traces'), spanOfBytes(20 * MB + 1))
    expect([over.code, over.details]).toEqual([8, 'the body is larger than 20971520 bytes'])
    expect(over.metadata.get('grpc-status-details-bin')).toEqual([])
    expect([ingress.stager.rows.length, ingress.budget.usedBytes]).toEqual([1, 0])
  })

  test.each([
    ['gzip', gzipSync],
    ['zstd', zstdCompressSync],
    ['deflate', deflateSync],
  ] as const)('E6: the same unpacked, in %s', async (encoding, pack) => {
    await using ingress = await serveGrpc({ maxBodyBytes: 100_000, inflightBytes: 10 * MB })
    await using session = await connectHttp2(ingress.port)
    const send = (body: Buffer) =>
      beginCall(session, { headers: { 'grpc-encoding': encoding }, body: framed(pack(body), 1) }).reply
    expect(asSuccess(await send(spanOfBytes(100_000)))).toEqual(fullSuccess)
    expect(inShort(await send(spanOfBytes(100_001)))).toEqual({
      status: 8,
      trailersOnly: true,
      message: 'the body is larger than 100000 bytes when unpacked',
    })
    expect([ingress.stager.rows.length, ingress.budget.usedBytes]).toEqual([1, 0])
  })

  test('E6: a bomb of 50 MB is refused in gzip and zstd, and also one of 20 MB and a byte', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    for (const [encoding, pack] of [
      ['gzip', gzipSync],
      ['zstd', zstdCompressSync],
    ] as const) {
      for (const bytes of [50 * MB, 20 * MB + 1]) {
        const body = framed(pack(Buffer.alloc(bytes)), 1)
        const { reply } = beginCall(session, { headers: { 'grpc-encoding': encoding }, body })
        expect(inShort(await reply)).toEqual({
          status: 8,
          trailersOnly: true,
          message: 'the body is larger than 20971520 bytes when unpacked',
        })
      }
    }
    expect(ingress.budget.usedBytes).toBe(0)
  })
})

describe('E6: the memory of the process', () => {
  test('E6: 100 streams that declare 2 GB cost next to nothing', async () => {
    await using listener = await startGrpcProcess()
    await using session = await connectHttp2(listener.port)
    expect((await beginCall(session).reply).status).toBe(0)
    const before = await listener.usage()
    for (let round = 0; round < 5; round++) {
      const calls = Array.from({ length: 100 }, () =>
        beginCall(session, { body: twoGigabytesDeclared, open: true }),
      )
      const replies = await Promise.all(calls.map(({ reply }) => reply))
      expect(replies.map(({ status }) => status)).toEqual(Array(100).fill(8))
    }
    const after = await listener.usage()
    expect([after.inflightBytes, after.rows]).toEqual([0, 1])
    expect(after.peakRssBytes - before.rssBytes).toBeLessThan(40 * MB)
  })

  test.each([
    ['gzip', gzipSync],
    ['zstd', zstdCompressSync],
  ] as const)(
    'E6: 100 bombs of 50 MB at once in %s stay within the budget and what unpacks beside it',
    async (encoding, pack) => {
      await using listener = await startGrpcProcess()
      const sessions = await connectMany(listener.port, 4)
      const body = framed(pack(Buffer.alloc(50 * MB)), 1)
      const before = await listener.usage()
      const calls = sessions.flatMap((session) =>
        Array.from({ length: 25 }, () =>
          beginCall(session, { headers: { 'grpc-encoding': encoding }, body }),
        ),
      )
      const replies = await Promise.all(calls.map(({ reply }) => reply))
      const statuses = new Set(replies.map(({ status }) => status))
      // Those whose turn does not come in 5 s are 14.
      statuses.delete(14)
      expect(statuses).toEqual(new Set([8]))
      const after = await listener.usage()
      expect([after.inflightBytes, after.rows]).toEqual([0, 0])
      // Two bodies of 20 MB are unpacked at a time; the rest is memory that is not given back at once.
      expect(after.peakRssBytes - before.rssBytes).toBeLessThan(128 * MB)
      const [first] = sessions
      if (first !== undefined) expect((await beginCall(first).reply).status).toBe(0)
      for (const session of sessions) await session[Symbol.asyncDispose]()
    },
  )

  test('E6: 100 honest streams of 1 MB at once are all taken, within the budget', async () => {
    await using listener = await startGrpcProcess()
    await using session = await connectHttp2(listener.port)
    const body = framed(spanOfBytes(MB - 5))
    const calls = Array.from({ length: 100 }, () => beginCall(session, { body }))
    const replies = await Promise.all(calls.map(({ reply }) => reply))
    expect(replies.filter(({ status }) => status !== 0).map(inShort)).toEqual([])
    const { rows, inflightBytes, peakRssBytes, rssBytes } = await listener.usage()
    expect([rows, inflightBytes]).toEqual([100, 0])
    expect(peakRssBytes).toBeGreaterThanOrEqual(rssBytes)
  })

  test('E6: 100 streams of 20 MB at once are refused beyond the budget and the memory keeps to it', async () => {
    await using listener = await startGrpcProcess()
    const sessions = await connectMany(listener.port, 4)
    const before = await listener.usage()
    const body = framed(spanOfBytes(20 * MB))
    const calls = sessions.flatMap((session) =>
      Array.from({ length: 25 }, () => beginCall(session, { body })),
    )
    const replies = await Promise.all(calls.map(({ reply }) => reply))
    const statuses = replies.map(({ status }) => status)
    expect(new Set(statuses)).toEqual(new Set([0, 14]))
    const after = await listener.usage()
    expect([after.inflightBytes, after.rows]).toEqual([0, statuses.filter((status) => status === 0).length])
    // Twice the budget: buffers that were outgrown go when they are next collected.
    expect(after.peakRssBytes - before.rssBytes).toBeLessThan(2.5 * 128 * MB)
    for (const session of sessions) await session[Symbol.asyncDispose]()
  })

  test('E6: 1,000 streams that stall after 20 kB hold the budget for those bytes and not much more memory', async () => {
    await using listener = await startGrpcProcess({ inflightBytes: 20 * MB, maxBodyBytes: 2 * MB })
    const sessions = await connectMany(listener.port, 10)
    const before = await listener.usage()
    const start = framed(spanOfBytes(MB)).subarray(0, 20_000)
    const calls = sessions.flatMap((session) =>
      Array.from({ length: 100 }, () => beginCall(session, { body: start, open: true })),
    )
    await expect.poll(async () => (await listener.usage()).inflightBytes).toBeGreaterThan(19 * MB)
    const after = await listener.usage()
    expect(after.inflightBytes).toBeLessThanOrEqual(20 * MB)
    expect(after.peakRssBytes - before.rssBytes).toBeLessThan(80 * MB)
    for (const session of sessions) await session[Symbol.asyncDispose]()
    await Promise.all(calls.map(({ reply }) => reply))
    await expect.poll(async () => (await listener.usage()).inflightBytes).toBe(0)
    await using honest = await connectHttp2(listener.port)
    expect(asSuccess(await beginCall(honest, { body: framed(oneSpan) }).reply)).toEqual(fullSuccess)
  })
})
