import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { Overdue } from '../../src/ingress/overdue.ts'
import {
  asSuccess,
  beginCall,
  callOnce,
  connectHttp2,
  framed,
  fullSuccess,
  inShort,
  type OpenCall,
  serveGrpc,
} from './grpc-serve.ts'
import {
  dataFrames,
  exportHeaders,
  FrameConnection,
  flags,
  frameOf,
  frameTypes,
  preface,
  settingsPayload,
} from './http2-frames.ts'
import { oneSpan, RawConnection, send } from './serve.ts'

const wrongProtocol = 'this port takes OTLP/gRPC; OTLP/HTTP goes to its own port, 4318 by default'
const tlsHello = Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), Buffer.alloc(500, 7)])

describe('E8: right data, wrong port', () => {
  test('E8: a POST of OTLP/HTTP reads where it belongs, in one log line, and leaves nothing behind', async () => {
    await using ingress = await serveGrpc()
    const answer = await send(ingress.port, { body: oneSpan })
    expect([answer.status, answer.headers['content-type'], JSON.parse(answer.body.toString())]).toEqual([
      400,
      'application/json',
      { code: 3, message: wrongProtocol },
    ])
    expect(ingress.lines()).toMatchObject([
      { event: 'grpc_malformed', level: 'info', reason: 'wrong_protocol', message: wrongProtocol },
    ])
    await expect.poll(() => ingress.connections()).toBe(0)
  })

  test.each([
    ['TLS', tlsHello, 'this port takes gRPC without TLS'],
    ['garbage', Buffer.from('\x00\x01\x02\x03garbage'), wrongProtocol],
    ['HTTP/1.0', Buffer.from('GET / HTTP/1.0\r\n\r\n'), wrongProtocol],
    ['an upgrade to HTTP/2', Buffer.from('GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n'), wrongProtocol],
    [
      'a large upload',
      Buffer.concat([Buffer.from('POST / HTTP/1.1\r\n\r\n'), Buffer.alloc(3_000_000)]),
      wrongProtocol,
    ],
  ])('E8: %s is told so in plain HTTP and closed', async (_, bytes, message) => {
    await using ingress = await serveGrpc()
    const connection = new RawConnection(ingress.port).write(bytes)
    await connection.closed
    expect(connection.received).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    expect(JSON.parse(connection.received.split('\r\n\r\n')[1] ?? '')).toEqual({ code: 3, message })
    connection.socket.destroy()
    await expect.poll(() => ingress.connections()).toBe(0)
    expect(ingress.lines().length).toBe(1)
  })

  test('E8: a thousand of them are at most 20 lines a second in the log, and others are served', async () => {
    await using ingress = await serveGrpc()
    const startedMs = performance.now()
    for (let round = 0; round < 10; round++) {
      const connections = Array.from({ length: 100 }, () =>
        new RawConnection(ingress.port).write('POST /v1/traces HTTP/1.1\r\n\r\n'),
      )
      await Promise.all(connections.map(({ closed }) => closed))
      for (const { socket } of connections) socket.destroy()
    }
    const seconds = Math.ceil((performance.now() - startedMs) / 1000)
    expect(ingress.lines().length).toBeLessThanOrEqual(20 * seconds)
    expect(asSuccess(await callOnce(ingress.port))).toEqual(fullSuccess)
    await expect.poll(() => ingress.connections()).toBe(0)
  })

  test('E8: those who do not read the answer are cut', async () => {
    await using ingress = await serveGrpc()
    const connections = Array.from({ length: 20 }, () =>
      new RawConnection(ingress.port).write('GET / HTTP/1.1\r\n'),
    )
    for (const { socket } of connections) socket.pause()
    await expect.poll(() => ingress.connections()).toBe(20)
    await expect.poll(() => ingress.connections()).toBe(0)
    for (const { socket } of connections) socket.destroy()
  })
})

describe('connections', () => {
  test('one that says nothing, or begins and does not go on, is cut when the time is over', async () => {
    await using ingress = await serveGrpc({ requestTimeoutMs: 300 })
    const starts = ['', 'P', 'PRI', 'PRI * HTTP/2.0', preface.subarray(0, 20), preface]
    const startedMs = performance.now()
    const connections = starts.map((start) => new RawConnection(ingress.port).write(start))
    await Promise.all(connections.map(({ closed }) => closed))
    const tookMs = performance.now() - startedMs
    expect([tookMs > 250, tookMs < 20_000]).toEqual([true, true])
    for (const { socket } of connections) socket.destroy()
    await expect.poll(() => ingress.connections()).toBe(0)
    expect(ingress.lines()).toEqual([])
  })

  test('one that has begun stays open without a call, and its pings are answered', async () => {
    await using ingress = await serveGrpc({ requestTimeoutMs: 1000 })
    await using idle = new FrameConnection(ingress.port)
    await using session = await connectHttp2(ingress.port)
    expect(asSuccess(await beginCall(session).reply)).toEqual(fullSuccess)
    for (let count = 0; count < 10; count++) {
      await systemClock.sleep(200)
      await idle.ping(`idle ${count}`)
    }
    const [error] = await new Promise<unknown[]>((resolve) => session.http2.ping((...told) => resolve(told)))
    expect(error).toBe(null)
    expect(asSuccess(await beginCall(session).reply)).toEqual(fullSuccess)
    expect([idle.goawayCode, ingress.connections()]).toEqual([undefined, 2])
  })

  test('a ping every 10 ms, as impatient keepalives send it, is answered and not punished', async () => {
    await using ingress = await serveGrpc()
    await using connection = new FrameConnection(ingress.port)
    for (let count = 0; count < 200; count++) await connection.ping(String(count))
    connection.beginExport(1, framed(oneSpan))
    await connection.until(({ type, stream }) => type === frameTypes.data && stream === 1)
    expect(connection.goawayCode).toBe(undefined)
  })

  test('one hundred calls at once are let in; a client that knows lets others wait, one that does not is ended', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    const calls = Array.from({ length: 250 }, () => beginCall(session))
    expect((await Promise.all(calls.map(({ reply }) => reply))).map(asSuccess)).toEqual(
      Array(250).fill(fullSuccess),
    )

    await using connection = new FrameConnection(ingress.port)
    const settings = await connection.until(({ type }) => type === frameTypes.settings)
    expect(settings.payload.includes(settingsPayload({ 3: 100 }))).toBe(true)
    await connection.ping()
    const release = ingress.stager.hold()
    for (let index = 0; index < 101; index++) connection.beginExport(2 * index + 1, framed(oneSpan))
    await connection.closed
    expect(connection.goawayCode).toBe(1)
    release()
    await expect.poll(() => [ingress.stager.rows.length, ingress.budget.usedBytes]).toEqual([350, 0])
  })

  test('what breaks the rules of HTTP/2 ends its connection with one log line, and no other', async () => {
    await using ingress = await serveGrpc()
    await using other = await connectHttp2(ingress.port)
    await using connection = new FrameConnection(ingress.port)
    connection.write(frameOf(frameTypes.data, 0, 1, Buffer.alloc(10)))
    await connection.closed
    expect(connection.goawayCode).toBe(1)
    expect(asSuccess(await beginCall(other).reply)).toEqual(fullSuccess)
    expect(ingress.lines().map(({ event, level }) => [event, level])).toEqual([['grpc_malformed', 'info']])
  })

  test('connections that are reset at once leave nothing behind, in the log either', async () => {
    await using ingress = await serveGrpc()
    for (const start of [Buffer.alloc(0), Buffer.from('PR'), preface.subarray(0, 20), preface]) {
      const connections = Array.from({ length: 50 }, () => new RawConnection(ingress.port).write(start))
      await Promise.all(connections.map(({ opened }) => opened))
      for (const { socket } of connections) socket.resetAndDestroy()
    }
    await expect.poll(() => ingress.connections()).toBe(0)
    expect(ingress.lines()).toEqual([])
    expect(asSuccess(await callOnce(ingress.port))).toEqual(fullSuccess)
  })
})

describe('what is open', () => {
  test('answers that are not read are given up when the time is over', async () => {
    await using ingress = await serveGrpc({ requestTimeoutMs: 1000 })
    await using connection = new FrameConnection(ingress.port, { begin: false })
    connection.write(
      preface,
      frameOf(frameTypes.settings, 0, 0, settingsPayload({ 4: 0 })),
      frameOf(frameTypes.headers, flags.endHeaders, 1, exportHeaders()),
      ...dataFrames(1, framed(oneSpan), true),
    )
    const reset = await connection.until(({ type }) => type === frameTypes.rstStream)
    expect([reset.stream, ingress.stager.rows.length]).toEqual([1, 1])
    await connection.ping()
  })

  test('calls that stall beyond 10,000 are refused, and taken again when those are gone', async () => {
    await using ingress = await serveGrpc()
    const sessions = await Promise.all(Array.from({ length: 101 }, () => connectHttp2(ingress.port)))
    for (const session of sessions.slice(1)) {
      for (let count = 0; count < 100; count++) beginCall(session, { body: Buffer.alloc(0), open: true })
      await new Promise((resolve) => session.http2.ping(resolve))
    }
    const [first, ...others] = sessions
    if (first === undefined) throw new Error('there is no connection')
    const refused = await beginCall(first).reply
    expect(inShort(refused)).toEqual({
      status: 14,
      trailersOnly: true,
      message: 'too many requests are in flight',
    })
    expect(ingress.lines()).toMatchObject([{ event: 'in_flight_full', reason: 'max_inflight_requests' }])
    for (const session of others) session.http2.destroy()
    await expect.poll(() => ingress.connections()).toBe(1)
    expect(asSuccess(await beginCall(first).reply)).toEqual(fullSuccess)
    await first[Symbol.asyncDispose]()
  })

  test('of more than 200 watchers and stalled questions the oldest is ended, and whoever asks is answered', async () => {
    await using ingress = await serveGrpc()
    const sessions = await Promise.all(Array.from({ length: 14 }, () => connectHttp2(ingress.port)))
    const watch = { headers: { ':path': '/grpc.health.v1.Health/Watch' }, body: framed(Buffer.alloc(0)) }
    const check = { ...watch, headers: { ':path': '/grpc.health.v1.Health/Check' } }
    const stalled = { ...check, body: Buffer.alloc(0), open: true }
    const opened: OpenCall[] = []
    for (const session of sessions.slice(1)) {
      const length = Math.min(16, 200 - opened.length)
      const calls = Array.from({ length }, (_, index) => beginCall(session, index % 2 ? watch : stalled))
      opened.push(...calls)
      await new Promise((resolve) => session.http2.ping(resolve))
    }
    const [first, ...others] = sessions
    if (first === undefined) throw new Error('there is no connection')
    for (let count = 0; count < 10; count++) expect((await beginCall(first, check).reply).status).toBe(0)
    expect(asSuccess(await beginCall(first).reply)).toEqual(fullSuccess)
    const [oldest, ...younger] = opened
    expect((await oldest?.reply)?.message).toBe('too many calls of this service are open')
    expect(younger.some(({ stream }) => stream.closed)).toBe(false)
    for (const session of others) await session[Symbol.asyncDispose]()
    await first[Symbol.asyncDispose]()
  })

  test('of what is overdue, or more than there may be, the oldest is ended first, once', () => {
    const ended: string[] = []
    const [a, b, c] = [{ name: 'a' }, { name: 'b' }, { name: 'c' }]
    const overdue = new Overdue<{ name: string }>(2, ({ name }) => ended.push(name))
    overdue.add(a, 10)
    overdue.add(b, 5)
    overdue.look(4)
    expect(ended).toEqual([])
    overdue.add(c, 20)
    expect(ended).toEqual(['a'])
    overdue.look(5)
    overdue.done(c)
    overdue.look(100)
    expect(ended).toEqual(['a', 'b'])
  })
})
