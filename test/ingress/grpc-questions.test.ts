import { once } from 'node:events'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { ByteBudget } from '../../src/foundation/byte-budget.ts'
import { BodyBuffer } from '../../src/ingress/body-buffer.ts'
import { Reservation } from '../../src/ingress/reservation.ts'
import { beginCall, callOnce, connectHttp2, framed, serveGrpc } from './grpc-serve.ts'

const check = { ':path': '/grpc.health.v1.Health/Check' }
const watch = { ':path': '/grpc.health.v1.Health/Watch' }
const reflect = { ':path': '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo' }
const traceService = 'opentelemetry.proto.collector.trace.v1.TraceService'
const asking = Buffer.concat([Buffer.of(0x0a, traceService.length), Buffer.from(traceService)])
const serving = framed(Buffer.of(0x08, 1)).toString('hex')
/** ServerReflectionRequest with list_services. */
const listServices = framed(Buffer.from('3a00', 'hex'))

describe('a question to health or reflection', () => {
  test('of an open group and a length without end is answered, and the process goes on', async () => {
    await using ingress = await serveGrpc()
    const message = Buffer.concat([Buffer.from('0b12', 'hex'), Buffer.alloc(200, 0x80), Buffer.of(0)])
    for (const headers of [check, reflect]) {
      const { status } = await callOnce(ingress.port, { headers, body: framed(message) })
      expect(status).toBeTypeOf('number')
    }
    expect((await callOnce(ingress.port)).status).toBe(0)
  })

  test('may be compressed', async () => {
    await using ingress = await serveGrpc()
    const body = framed(gzipSync(asking), 1)
    const { status, body: told } = await callOnce(ingress.port, {
      headers: { ...check, 'grpc-encoding': 'gzip' },
      body,
    })
    expect([status, told.toString('hex')]).toEqual([0, serving])
    const { status: unknown } = await callOnce(ingress.port, {
      headers: { ...check, 'grpc-encoding': 'lzma' },
      body,
    })
    expect(unknown).toBe(12)
    const bomb = framed(gzipSync(Buffer.alloc(50_000_000)), 1)
    const refused = await callOnce(ingress.port, {
      headers: { ...reflect, 'grpc-encoding': 'gzip' },
      body: bomb,
    })
    expect(refused.status).toBe(8)
  })

  test('is looked at as an export is: method, content type, and one message', async () => {
    await using ingress = await serveGrpc()
    const get = await callOnce(ingress.port, { headers: { ...check, ':method': 'GET' }, body: undefined })
    const json = await callOnce(ingress.port, { headers: { ...check, 'content-type': 'application/json' } })
    const two = await callOnce(ingress.port, {
      headers: check,
      body: Buffer.concat([framed(asking), framed(asking)]),
    })
    expect([get.headers[':status'], json.headers[':status'], two.status]).toEqual([405, 415, 3])
  })

  test('that does not come whole in time is ended, and a watcher is not', async () => {
    await using ingress = await serveGrpc({ requestTimeoutMs: 500 })
    await using session = await connectHttp2(ingress.port)
    const watching = beginCall(session, { headers: watch, body: framed(asking) })
    await once(watching.stream, 'data')
    const silent = beginCall(session, { headers: check, body: Buffer.alloc(0), open: true })
    expect((await silent.reply).status).toBe(14)
    const told = once(watching.stream, 'data')
    ingress.refuse('disk')
    const [change] = (await told) as [Buffer]
    expect(change.toString('hex')).toBe(framed(Buffer.of(0x08, 2)).toString('hex'))
  })

  test('is one of at most 16 on its connection, and other connections and exports are served', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    const stalled = Array.from({ length: 17 }, () =>
      beginCall(session, { headers: check, body: Buffer.alloc(0), open: true }),
    )
    expect((await stalled[16]?.reply)?.status).toBe(8)
    expect((await beginCall(session).reply).status).toBe(0)
    expect((await callOnce(ingress.port, { headers: check, body: framed(asking) })).status).toBe(0)
  })

  test('of 1 MB in many small messages is refused without work for each', async () => {
    await using ingress = await serveGrpc()
    const body = Buffer.concat(Array.from({ length: 140_000 }, () => listServices))
    const { status } = await callOnce(ingress.port, { headers: reflect, body })
    expect(status).toBe(8)
  })

  test('whose answers nobody reads is ended', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    const question = Buffer.concat([Buffer.of(0x22, traceService.length), Buffer.from(traceService)])
    const asked = beginCall(session, { headers: reflect, body: Buffer.alloc(0), open: true })
    asked.stream.pause()
    for (let count = 0; count < 200; count++) asked.stream.write(framed(question))
    for (let count = 0; count < 3; count++) await new Promise((resolve) => session.http2.ping(resolve))
    asked.stream.resume()
    expect((await asked.reply).status).toBe(8)
  })
})

test('health says NOT_SERVING while the database is away', async () => {
  let reachable = false
  await using ingress = await serveGrpc({ reachable: () => reachable })
  const ask = async () =>
    (await callOnce(ingress.port, { headers: check, body: framed(asking) })).body.toString('hex')
  expect(await ask()).toBe(framed(Buffer.of(0x08, 2)).toString('hex'))
  reachable = true
  expect(await ask()).toBe(serving)
})

test('a short piece of a body does not keep the read of the socket that it came with', () => {
  const body = new BodyBuffer(new Reservation(new ByteBudget(1_000_000)), 100)
  body.add(Buffer.alloc(65_536).subarray(0, 1))
  expect(body.bytes.buffer.byteLength).toBe(1)
  const whole = Buffer.alloc(65_536)
  const large = new BodyBuffer(new Reservation(new ByteBudget(1_000_000)), 65_536)
  large.add(whole)
  expect(large.bytes).toBe(whole)
})

test('a bad grpc-timeout is looked at after what a sender may try again', async () => {
  await using ingress = await serveGrpc({ rateLimit: { perSecond: 0.001, burst: 1 } })
  const headers = { 'grpc-timeout': 'soon' }
  expect([
    (await callOnce(ingress.port, { headers })).status,
    (await callOnce(ingress.port, { headers })).status,
  ]).toEqual([3, 8])
})
