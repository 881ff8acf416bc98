import { once } from 'node:events'
import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import {
  asSuccess,
  beginCall,
  callOnce,
  connectHttp2,
  exportPathOf,
  framed,
  fullSuccess,
  GrpcJsClient,
  inShort,
  never,
  serveGrpc,
} from './grpc-serve.ts'
import { FrameConnection, flags, frameTypes, preface } from './http2-frames.ts'
import { oneSpan, RawConnection } from './serve.ts'

test('E5: 200 calls in flight are answered OK, a half-open one UNAVAILABLE after 2 s, and then nobody listens', async () => {
  await using ingress = await serveGrpc()
  const release = ingress.stager.hold()
  await using first = await connectHttp2(ingress.port)
  await using second = await connectHttp2(ingress.port)
  await using third = await connectHttp2(ingress.port)
  await using idle = await connectHttp2(ingress.port)
  const calls = [first, second].flatMap((session) => Array.from({ length: 100 }, () => beginCall(session)))
  const halfOpen = beginCall(third, { body: framed(oneSpan).subarray(0, 10), open: true })
  await ingress.stager.whenAppended(200)
  await expect.poll(() => ingress.budget.usedBytes).toBe(200 * (oneSpan.length + 5) + 10)
  await new Promise((resolve) => idle.http2.ping(resolve))

  const idleClosed = once(idle.http2, 'close')
  const startedMs = performance.now()
  const stopped = ingress.grpc.stop(never)
  expect(ingress.grpc.draining).toBe(true)
  const endedFirst = await Promise.race([
    idleClosed.then(() => 'idle'),
    halfOpen.reply.then(() => 'half open'),
  ])
  expect(endedFirst).toBe('idle')

  const refused = await halfOpen.reply
  const refusedAfterMs = performance.now() - startedMs
  expect(inShort(refused)).toEqual({ status: 14, trailersOnly: true, message: 'shutting down' })
  expect(refused.headers).toHaveProperty('grpc-status-details-bin')
  expect([refusedAfterMs > 1_900, refusedAfterMs < 6_000]).toEqual([true, true])

  release()
  const replies = await Promise.all(calls.map(({ reply }) => reply))
  expect(replies.map(asSuccess)).toEqual(Array(200).fill(fullSuccess))
  await stopped
  expect(performance.now() - startedMs).toBeLessThan(8_500)
  expect([ingress.stager.rows.length, ingress.budget.usedBytes]).toEqual([200, 0])
  await expect.poll(() => ingress.connections()).toBe(0)
  await expect(connectHttp2(ingress.port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
})

test('E5: clients of grpc-js hear OK for what is in flight, and UNAVAILABLE from then on', async () => {
  await using ingress = await serveGrpc()
  const release = ingress.stager.hold()
  await using client = new GrpcJsClient(ingress.port)
  const calls = Array.from({ length: 50 }, () => client.call(exportPathOf('traces'), oneSpan))
  await ingress.stager.whenAppended(50)
  const stopped = ingress.grpc.stop(never)
  const late = await client.call(exportPathOf('traces'), oneSpan, { deadline: Date.now() + 5_000 })
  expect(late.code).toBe(14)
  release()
  expect((await Promise.all(calls)).map(({ code }) => code)).toEqual(Array(50).fill(0))
  await stopped
  expect(ingress.stager.rows.length).toBe(50)
})

test('E5: a new connection during the drain is answered UNAVAILABLE and told to go', async () => {
  await using ingress = await serveGrpc()
  const release = ingress.stager.hold()
  await using session = await connectHttp2(ingress.port)
  const inHand = beginCall(session)
  await ingress.stager.whenAppended(1)
  const stopped = ingress.grpc.stop(never)
  const late = await callOnce(ingress.port)
  expect(inShort(late)).toEqual({ status: 14, trailersOnly: true, message: 'shutting down' })
  expect(late.headers).toHaveProperty('google.rpc.retryinfo-bin')
  await using connection = new FrameConnection(ingress.port)
  connection.beginExport(1, framed(oneSpan))
  await connection.until(({ type }) => type === frameTypes.goaway)
  await connection.closed
  expect(connection.goawayCode).toBe(0)
  release()
  expect((await inHand.reply).status).toBe(0)
  await stopped
  expect(ingress.stager.rows.length).toBe(1)
})

test('E5: a ping after GOAWAY is answered and kills no call', async () => {
  await using ingress = await serveGrpc()
  const release = ingress.stager.hold()
  await using connection = new FrameConnection(ingress.port)
  connection.beginExport(1, framed(oneSpan))
  await ingress.stager.whenAppended(1)
  const stopped = ingress.grpc.stop(never)
  const goaway = await connection.until(({ type }) => type === frameTypes.goaway)
  expect([goaway.payload.readUInt32BE(0), goaway.payload.readUInt32BE(4)]).toEqual([1, 0])
  for (let count = 0; count < 20; count++) await connection.ping(`ping ${count}`)
  release()
  await connection.until(({ type, flags: bits }) => type === frameTypes.headers && bits === flags.endHeaders)
  const trailers = await connection.until(
    ({ type, flags: bits }) => type === frameTypes.headers && (bits & flags.endStream) !== 0,
  )
  expect(trailers.stream).toBe(1)
  await connection.closed
  await stopped
  expect(ingress.stager.rows.length).toBe(1)
})

test('E5: an upload that comes whole within 2 s is staged and answered OK', async () => {
  await using ingress = await serveGrpc()
  await using session = await connectHttp2(ingress.port)
  const { stream, reply } = beginCall(session, { body: framed(oneSpan).subarray(0, -1), open: true })
  await expect.poll(() => ingress.budget.usedBytes).toBe(framed(oneSpan).length - 1)
  const stopped = ingress.grpc.stop(never)
  stream.end(framed(oneSpan).subarray(-1))
  expect(asSuccess(await reply)).toEqual(fullSuccess)
  await stopped
  expect(ingress.stager.rows.length).toBe(1)
})

test('E5: a commit that hangs and clients that do not read hold a stop up for 8 s at most', async () => {
  await using ingress = await serveGrpc()
  const release = ingress.stager.hold()
  await using hanging = await connectHttp2(ingress.port)
  const { reply } = beginCall(hanging)
  await ingress.stager.whenAppended(1)
  await using deaf = new FrameConnection(ingress.port)
  await deaf.ping()
  deaf.socket.pause()
  const startedMs = performance.now()
  await ingress.grpc.stop(never)
  const tookMs = performance.now() - startedMs
  expect([tookMs > 7_000, tookMs < 10_000]).toEqual([true, true])
  expect((await reply).status).toBe(undefined)
  release()
  await expect.poll(() => ingress.stager.rows.length).toBe(1)
  expect(ingress.budget.usedBytes).toBe(0)
})

test('E5: connections that have said nothing, half a preface or nonsense do not hold a stop up', async () => {
  await using ingress = await serveGrpc()
  const starts = [
    Buffer.alloc(0),
    Buffer.from('P'),
    preface.subarray(0, 12),
    preface,
    Buffer.from('GET / HTTP/1.1\r\n'),
  ]
  const connections = starts.map((start) => new RawConnection(ingress.port).write(start))
  await Promise.all(connections.map(({ opened }) => opened))
  await expect.poll(() => ingress.connections()).toBe(starts.length)
  const startedMs = performance.now()
  await ingress.grpc.stop(never)
  expect(performance.now() - startedMs).toBeLessThan(6_000)
  await Promise.all(connections.map(({ closed }) => closed))
  for (const { socket } of connections) socket.destroy()
})

test('E5: when the grace is over everything is cut at once', async () => {
  await using ingress = await serveGrpc()
  const release = ingress.stager.hold()
  await using session = await connectHttp2(ingress.port)
  const calls = [beginCall(session), beginCall(session, { body: Buffer.alloc(0), open: true })]
  const silent = new RawConnection(ingress.port)
  await silent.opened
  await ingress.stager.whenAppended(1)
  const startedMs = performance.now()
  await ingress.grpc.stop(AbortSignal.abort())
  expect(performance.now() - startedMs).toBeLessThan(3_000)
  for (const { reply } of calls) await reply
  await silent.closed
  silent.socket.destroy()
  release()
})

test('E5: a stop may be asked for twice, and before a start', async () => {
  await using ingress = await serveGrpc()
  await callOnce(ingress.port)
  await Promise.all([ingress.grpc.stop(never), ingress.grpc.stop(never)])
  ingress.stager.failure = new Failure('outage', 'away')
  await ingress.grpc.stop(never)
})
