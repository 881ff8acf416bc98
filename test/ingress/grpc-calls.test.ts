import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { ExportPath } from '../../src/ingress/export.ts'
import type { Outcome } from '../../src/ingress/outcome.ts'
import {
  asSuccess,
  beginCall,
  connectHttp2,
  exportPathOf,
  framed,
  fullSuccess,
  GrpcJsClient,
  inShort,
  never,
  serveGrpc,
} from './grpc-serve.ts'
import { exportHeaders, FrameConnection, frameOf, frameTypes } from './http2-frames.ts'
import { oneSpan, payload } from './serve.ts'

const cancel = Buffer.of(0, 0, 0, 8)
const openHeaders = exportHeaders()
/** What would have ended a process. */
const uncaught: unknown[] = []
const note = (error: unknown) => uncaught.push(error)

beforeAll(() => {
  process.on('uncaughtException', note)
  process.on('unhandledRejection', note)
})
afterAll(() => {
  process.off('uncaughtException', note)
  process.off('unhandledRejection', note)
})

describe('deadlines', () => {
  test('a call whose time is over while its message comes is DEADLINE_EXCEEDED and stages nothing', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    const startedMs = performance.now()
    const { reply } = beginCall(session, {
      headers: { 'grpc-timeout': '150m' },
      body: framed(oneSpan).subarray(0, -1),
      open: true,
    })
    const answered = await reply
    const tookMs = performance.now() - startedMs
    expect(inShort(answered)).toMatchObject({ status: 4, trailersOnly: true })
    expect([tookMs > 140, tookMs < 10_000]).toEqual([true, true])
    await expect.poll(() => ingress.budget.usedBytes).toBe(0)
    expect(ingress.stager.appended).toBe(0)
  })

  test('a call whose time is over while its commit hangs is DEADLINE_EXCEEDED, and its row is committed once', async () => {
    await using ingress = await serveGrpc()
    const release = ingress.stager.hold()
    await using session = await connectHttp2(ingress.port)
    const { reply } = beginCall(session, { headers: { 'grpc-timeout': '1000000u' } })
    await ingress.stager.whenAppended(1)
    expect(inShort(await reply)).toEqual({
      status: 4,
      trailersOnly: true,
      message: 'the call was not done when its time was over',
    })
    // Its bytes are in memory until the commit, and so are they in the budget.
    expect(ingress.budget.usedBytes).toBe(framed(oneSpan).length)
    release()
    await expect.poll(() => ingress.budget.usedBytes).toBe(0)
    expect([ingress.stager.rows.length, ingress.settled]).toEqual([
      1,
      [{ bytes: oneSpan.length, committed: true }],
    ])
    expect(asSuccess(await beginCall(session).reply)).toEqual(fullSuccess)
  })

  test('a call with time enough, in every unit, is OK', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    for (const timeout of ['1H', '1M', '10S', '10000m', '10000000u', '99999999H']) {
      const { reply } = beginCall(session, { headers: { 'grpc-timeout': timeout } })
      expect(asSuccess(await reply)).toEqual(fullSuccess)
    }
  })

  test('a deadline of grpc-js ends its call on both sides', async () => {
    await using ingress = await serveGrpc()
    const release = ingress.stager.hold()
    await using client = new GrpcJsClient(ingress.port)
    const { code } = await client.call(exportPathOf('traces'), oneSpan, { deadline: Date.now() + 2000 })
    expect(code).toBe(4)
    release()
    await expect.poll(() => [ingress.budget.usedBytes, ingress.stager.rows.length]).toEqual([0, 1])
  })

  test('a sender that is slower than the setting allows is told UNAVAILABLE, and its connection lives on', async () => {
    await using ingress = await serveGrpc({ requestTimeoutMs: 1000 })
    await using session = await connectHttp2(ingress.port)
    const slow = beginCall(session, { body: framed(oneSpan).subarray(0, 3), open: true })
    const silent = beginCall(session, { body: Buffer.alloc(0), open: true })
    const replies = await Promise.all([slow.reply, silent.reply])
    expect(replies.map(inShort)).toEqual(
      Array(2).fill({ status: 14, trailersOnly: true, message: 'the call did not come whole in time' }),
    )
    expect(replies[0].headers).toHaveProperty('google.rpc.retryinfo-bin')
    expect(asSuccess(await beginCall(session).reply)).toEqual(fullSuccess)
    expect([ingress.stager.rows.length, ingress.budget.usedBytes]).toEqual([1, 0])
  })

  test('the time to come whole does not run against a commit', async () => {
    await using ingress = await serveGrpc({ requestTimeoutMs: 1000 })
    const release = ingress.stager.hold()
    await using session = await connectHttp2(ingress.port)
    const { reply } = beginCall(session)
    await ingress.stager.whenAppended(1)
    await beginCall(session, { body: Buffer.alloc(0), open: true }).reply
    release()
    expect(asSuccess(await reply)).toEqual(fullSuccess)
  })
})

describe('E4: calls that are reset', () => {
  test('E4: 1,000 calls reset between request and answer: each row once, nothing held, nothing thrown', async () => {
    await using ingress = await serveGrpc()
    let sent = 0
    for (let round = 0; round < 2; round++) {
      const release = ingress.stager.hold()
      const connections = Array.from({ length: 5 }, () => new FrameConnection(ingress.port))
      const ids = Array.from({ length: 100 }, (_, index) => 2 * index + 1)
      for (const connection of connections) for (const id of ids) connection.beginExport(id, framed(oneSpan))
      sent += 500
      await ingress.stager.whenAppended(sent)
      // Half before the commit, half while the answers are written.
      for (const connection of connections) {
        for (const id of ids.slice(0, 50)) connection.write(frameOf(frameTypes.rstStream, 0, id, cancel))
        await connection.ping()
      }
      release()
      for (const connection of connections) {
        for (const id of ids.slice(50)) connection.write(frameOf(frameTypes.rstStream, 0, id, cancel))
        await connection.ping('after')
        await connection[Symbol.asyncDispose]()
      }
    }
    await expect.poll(() => ingress.budget.usedBytes).toBe(0)
    expect([ingress.stager.rows.length, ingress.settled.length, ingress.lines()]).toEqual([1000, 1000, []])
    expect(ingress.settled.every(({ committed }) => committed)).toBe(true)
    await expect.poll(() => ingress.connections()).toBe(0)
    expect(uncaught).toEqual([])
  })

  test('E4: connections that break between request and answer do the same', async () => {
    await using ingress = await serveGrpc()
    for (let round = 1; round <= 5; round++) {
      const release = ingress.stager.hold()
      const connections = Array.from({ length: 100 }, () =>
        new FrameConnection(ingress.port).beginExport(1, framed(oneSpan)).beginExport(3, framed(oneSpan)),
      )
      await ingress.stager.whenAppended(round * 200)
      for (const [index, { socket }] of connections.entries()) {
        if (index % 2 === 0) socket.resetAndDestroy()
        else socket.destroy()
      }
      release()
    }
    await expect.poll(() => [ingress.budget.usedBytes, ingress.connections()]).toEqual([0, 0])
    expect([ingress.stager.rows.length, ingress.settled.length, ingress.lines()]).toEqual([1000, 1000, []])
    expect(uncaught).toEqual([])
  })

  test('E4: a reset at every point of a call harms nobody', async () => {
    await using ingress = await serveGrpc()
    const body = framed(payload('js-traces.pb'))
    await using other = await connectHttp2(ingress.port)
    for (let at = 0; at <= body.length; at += Math.ceil(body.length / 40)) {
      await using connection = new FrameConnection(ingress.port)
      connection.beginExport(1, body.subarray(0, at), { end: false })
      if (at % 2 === 0) await connection.ping()
      connection.write(frameOf(frameTypes.rstStream, 0, 1, cancel))
      await connection.ping('after')
      expect(asSuccess(await beginCall(other).reply)).toEqual(fullSuccess)
    }
    await expect.poll(() => ingress.budget.usedBytes).toBe(0)
    expect(ingress.stager.rows.every((row) => row.payload.equals(oneSpan))).toBe(true)
    expect([ingress.lines(), uncaught]).toEqual([[], []])
  })

  test('E4: cancelling by grpc-js while commits hang', async () => {
    await using ingress = await serveGrpc()
    const release = ingress.stager.hold()
    await using client = new GrpcJsClient(ingress.port)
    const asIs = (bytes: Buffer) => bytes
    const { client: raw } = client
    const codes: number[] = []
    const calls = Array.from({ length: 100 }, () =>
      raw.makeUnaryRequest(exportPathOf('traces'), asIs, asIs, oneSpan, (error) =>
        codes.push(error?.code ?? 0),
      ),
    )
    await ingress.stager.whenAppended(100)
    for (const [index, call] of calls.entries()) if (index % 2 === 0) call.cancel()
    await expect.poll(() => codes).toEqual(Array(50).fill(1))
    release()
    await expect.poll(() => codes).toEqual([...Array(50).fill(1), ...Array(50).fill(0)])
    await expect.poll(() => ingress.budget.usedBytes).toBe(0)
    expect([ingress.stager.rows.length, ingress.lines(), uncaught]).toEqual([100, [], []])
    await ingress.grpc.stop(never)
  })

  test('E4: a flood of rapid resets ends its own connection and no other', async () => {
    await using ingress = await serveGrpc()
    await using other = await connectHttp2(ingress.port)
    await using flood = new FrameConnection(ingress.port)
    await flood.ping()
    const rounds = 200
    for (let round = 0; round < rounds && !flood.socket.destroyed; round++) {
      const calls = Array.from({ length: 50 }, (_, index) => {
        const id = 2 * (50 * round + index) + 1
        return [frameOf(frameTypes.headers, 4, id, openHeaders), frameOf(frameTypes.rstStream, 0, id, cancel)]
      })
      await flood.flush(...calls.flat())
    }
    await flood.closed
    // INTERNAL_ERROR, which nghttp2 says of more than a thousand resets at once.
    expect(flood.goawayCode).toBe(2)
    expect(asSuccess(await beginCall(other).reply)).toEqual(fullSuccess)
    await expect.poll(() => [ingress.budget.usedBytes, ingress.connections()]).toEqual([0, 1])
    expect([ingress.stager.rows.length, uncaught]).toEqual([1, []])
  })
})

test('a bug that shows only after the time of a client is over is in the log, once', async () => {
  const { promise, reject } = Promise.withResolvers<Outcome>()
  const exportPath = { accept: () => promise } as unknown as ExportPath
  await using ingress = await serveGrpc({ exportPath })
  await using session = await connectHttp2(ingress.port)
  const headers = { 'grpc-timeout': '100m', 'x-request-id': 'late' }
  expect((await beginCall(session, { headers }).reply).status).toBe(4)
  reject(new Error('a bug'))
  await expect.poll(() => ingress.lines()).toMatchObject([{ event: 'request_failed', request_id: 'late' }])
  expect(ingress.budget.usedBytes).toBe(0)
})
