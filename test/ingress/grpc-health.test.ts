import { once } from 'node:events'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  beginCall,
  callOnce,
  connectHttp2,
  framed,
  GrpcJsClient,
  never,
  type OpenCall,
  type ServedGrpc,
  serveGrpc,
} from './grpc-serve.ts'

const check = { ':path': '/grpc.health.v1.Health/Check' }
const watch = { ':path': '/grpc.health.v1.Health/Watch' }
const traceService = 'opentelemetry.proto.collector.trace.v1.TraceService'

/** HealthCheckRequest: the service in field 1. */
function asking(service: string): Buffer {
  return service === ''
    ? Buffer.alloc(0)
    : Buffer.concat([Buffer.of(0x0a, service.length), Buffer.from(service)])
}

/** HealthCheckResponse with a status, framed, in hex: 1 SERVING, 2 NOT_SERVING, 3 SERVICE_UNKNOWN. */
function telling(...statuses: number[]): string {
  return statuses.map((status) => framed(Buffer.of(0x08, status)).toString('hex')).join('')
}

async function checkOf({ port }: ServedGrpc, service: string) {
  const { status, message, body } = await callOnce(port, { headers: check, body: framed(asking(service)) })
  return { status, message, body: body.toString('hex') }
}

/** What a watcher has been told so far. */
function toldTo({ stream }: OpenCall): () => string {
  let told = ''
  stream.on('data', (part: Buffer) => {
    told += part.toString('hex')
  })
  return () => told
}

describe('Check', () => {
  test('says SERVING of the server and of each of its services', async () => {
    await using ingress = await serveGrpc()
    for (const service of ['', traceService, 'grpc.health.v1.Health']) {
      expect(await checkOf(ingress, service)).toEqual({ status: 0, message: undefined, body: telling(1) })
    }
  })

  test('says NOT_SERVING while everything is refused, and SERVING again after that', async () => {
    await using ingress = await serveGrpc()
    ingress.refuse('less than 1 GiB is free')
    expect((await checkOf(ingress, traceService)).body).toBe(telling(2))
    ingress.refuse(undefined)
    expect((await checkOf(ingress, traceService)).body).toBe(telling(1))
  })

  test('says NOT_FOUND of a service that is not here', async () => {
    await using ingress = await serveGrpc({ signals: ['traces'] })
    for (const service of ['nope', 'opentelemetry.proto.collector.logs.v1.LogsService']) {
      expect(await checkOf(ingress, service)).toEqual({ status: 5, message: 'unknown service', body: '' })
    }
  })

  test('is answered to a client of grpc-js, which ends the call itself', async () => {
    await using ingress = await serveGrpc()
    await using client = new GrpcJsClient(ingress.port)
    const { code, message } = await client.call(check[':path'], asking(traceService))
    expect([code, message?.toString('hex')]).toEqual([0, '0801'])
  })

  test('refuses what is no question with a status, and lives', async () => {
    await using ingress = await serveGrpc()
    const replies = await Promise.all(
      [undefined, Buffer.from('0000', 'hex'), framed(Buffer.alloc(70_000)), framed(asking('x'), 1)].map(
        (body) => callOnce(ingress.port, { headers: check, body }),
      ),
    )
    expect(replies.map(({ status, trailersOnly }) => [status, trailersOnly])).toEqual([
      [3, true],
      [3, true],
      [8, true],
      [3, true],
    ])
    expect((await checkOf(ingress, '')).body).toBe(telling(1))
  })
})

describe('Watch', () => {
  test('tells the state at once and then each change, once', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    const watching = beginCall(session, { headers: watch, body: framed(asking(traceService)) })
    const told = toldTo(watching)
    await expect.poll(told).toBe(telling(1))
    ingress.refuse('disk')
    await expect.poll(told).toBe(telling(1, 2))
    ingress.refuse(undefined)
    await expect.poll(told).toBe(telling(1, 2, 1))
    watching.stream.close()
    await watching.reply
    ingress.refuse('disk')
    expect((await checkOf(ingress, '')).body).toBe(telling(2))
    expect(told()).toBe(telling(1, 2, 1))
  })

  test('says SERVICE_UNKNOWN of a service that is not here and stays open, as its protocol asks', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    const watching = beginCall(session, { headers: watch, body: framed(asking('nope')) })
    const told = toldTo(watching)
    await expect.poll(told).toBe(telling(3))
    ingress.refuse('disk')
    expect((await checkOf(ingress, '')).body).toBe(telling(2))
    expect([told(), watching.stream.closed]).toEqual([telling(3), false])
  })

  test('E5: tells NOT_SERVING when the server stops, and ends', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    const watching = beginCall(session, { headers: watch, body: framed(asking('')) })
    const told = toldTo(watching)
    await expect.poll(told).toBe(telling(1))
    const startedMs = performance.now()
    const stopped = ingress.grpc.stop(never)
    const { body, status } = await watching.reply
    expect([body.toString('hex'), status]).toEqual([telling(1, 2), 14])
    await stopped
    expect(performance.now() - startedMs).toBeLessThan(6_000)
  })

  test('hundreds of watchers that go away are forgotten', async () => {
    await using ingress = await serveGrpc()
    for (let round = 0; round < 30; round++) {
      const session = await connectHttp2(ingress.port)
      const calls = Array.from({ length: 16 }, () =>
        beginCall(session, { headers: watch, body: framed(asking('')) }),
      )
      await Promise.all(calls.map(({ stream }) => once(stream, 'data')))
      if (round % 2 === 0) await session[Symbol.asyncDispose]()
      else {
        for (const { stream } of calls) stream.close()
        await Promise.all(calls.map(({ reply }) => reply))
        await session[Symbol.asyncDispose]()
      }
    }
    ingress.refuse('disk')
    expect((await checkOf(ingress, '')).body).toBe(telling(2))
    await expect.poll(() => ingress.connections()).toBe(0)
    expect(ingress.lines()).toEqual([])
  })
})

test('whatever bytes are sent to health and reflection, each call is answered and the process lives', async () => {
  await using ingress = await serveGrpc()
  await using session = await connectHttp2(ingress.port)
  const paths = [
    check[':path'],
    '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo',
  ]
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...paths),
      fc.uint8Array({ maxLength: 60 }),
      fc.boolean(),
      async (path, bytes, whole) => {
        const body = whole ? framed(Buffer.from(bytes)) : Buffer.from(bytes)
        const { status } = await beginCall(session, { headers: { ':path': path }, body }).reply
        expect(status).toBeTypeOf('number')
      },
    ),
    { numRuns: 500 },
  )
})
