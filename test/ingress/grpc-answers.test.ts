import { deflateRawSync, deflateSync, gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import type { Signal } from '../../src/otlp/signal.ts'
import {
  asSuccess,
  beginCall,
  callOnce,
  connectHttp2,
  exportPathOf,
  framed,
  fullSuccess,
  GrpcJsClient,
  type GrpcRequest,
  type GrpcServeOptions,
  inShort,
  type ServedGrpc,
  serveGrpc,
} from './grpc-serve.ts'
import { oneSpan, PROTOBUF, payload, readResponse, send, serveIngress } from './serve.ts'

const profile = protobufFromJson(
  'profiles',
  Buffer.from(
    JSON.stringify({
      resourceProfiles: [{ scopeProfiles: [{ profiles: [{ profileId: '07'.repeat(16), period: '7' }] }] }],
      dictionary: { stringTable: ['', 'cpu'] },
    }),
  ),
)
const bodies: Record<Signal, Buffer> = {
  traces: payload('js-traces.pb'),
  metrics: payload('js-metrics.pb'),
  logs: payload('js-logs.pb'),
  profiles: profile,
}
const everySignal = Object.keys(bodies) as Signal[]

describe('what is taken', () => {
  test.each(everySignal)('%s: the same row is staged as over HTTP', async (signal) => {
    await using grpc = await serveGrpc()
    await using http = await serveIngress({ signals: everySignal })
    const headers = { 'x-request-id': 'the same' }
    for (const pack of [(bytes: Buffer) => bytes, gzipSync]) {
      const body = pack(bodies[signal])
      const encoding = pack === gzipSync ? 'gzip' : 'identity'
      const reply = await callOnce(grpc.port, {
        signal,
        headers: { ...headers, 'grpc-encoding': encoding },
        body: framed(body, pack === gzipSync ? 1 : 0),
      })
      const path = signal === 'profiles' ? '/v1development/profiles' : `/v1/${signal}`
      const answer = await send(http.port, {
        path,
        headers: { ...headers, 'content-type': PROTOBUF, 'content-encoding': encoding },
        body,
      })
      expect([asSuccess(reply), answer.status]).toEqual([fullSuccess, 200])
    }
    expect(grpc.stager.rows).toEqual(http.stager.rows)
    expect(grpc.stager.rows.map(({ encoding, payload: staged }) => [encoding, staged.length])).toEqual([
      ['identity', bodies[signal].length],
      ['gzip', gzipSync(bodies[signal]).length],
    ])
  })

  const packers: [string, string, (bytes: Buffer) => Buffer][] = [
    ['gzip', 'gzip', gzipSync],
    ['gzip in two members', 'gzip', (bytes) => Buffer.concat([gzipSync(bytes), gzipSync(bytes)])],
    ['deflate with a zlib header', 'deflate', deflateSync],
    ['deflate without one', 'deflate', deflateRawSync],
    ['zstd', 'zstd', zstdCompressSync],
    [
      'zstd in two frames',
      'zstd',
      (bytes) => Buffer.concat([zstdCompressSync(bytes), zstdCompressSync(bytes)]),
    ],
  ]
  test.each(packers)('E3: %s', async (title, encoding, pack) => {
    await using ingress = await serveGrpc()
    const reply = await callOnce(ingress.port, {
      headers: { 'grpc-encoding': encoding },
      body: framed(pack(bodies.traces), 1),
    })
    expect(asSuccess(reply)).toEqual(fullSuccess)
    const times = title.includes('two') ? 2 : 1
    expect(ingress.stager.rows.map(({ encoding: as, payload: bytes }) => [as, gunzipSync(bytes)])).toEqual([
      ['gzip', Buffer.concat(Array(times).fill(bodies.traces))],
    ])
  })

  test('E3: an uncompressed message of a call with an encoding, and identity named', async () => {
    await using ingress = await serveGrpc()
    for (const encoding of ['gzip', 'identity', 'zstd', 'deflate']) {
      const reply = await callOnce(ingress.port, { headers: { 'grpc-encoding': encoding } })
      expect(asSuccess(reply)).toEqual(fullSuccess)
    }
    expect(ingress.stager.rows.map(({ encoding, payload: bytes }) => [encoding, bytes])).toEqual(
      Array(4).fill(['identity', oneSpan]),
    )
  })

  test.each(everySignal)('%s: an empty message is OK and not staged', async (signal) => {
    await using ingress = await serveGrpc()
    expect(asSuccess(await callOnce(ingress.port, { signal, body: framed(Buffer.alloc(0)) }))).toEqual(
      fullSuccess,
    )
    expect(ingress.stager.appended).toBe(0)
  })

  test.each(['gzip', 'deflate', 'zstd'])(
    'E3: 01 00000000 with %s is an empty request: OK and not staged',
    async (encoding) => {
      await using ingress = await serveGrpc()
      const reply = await callOnce(ingress.port, {
        headers: { 'grpc-encoding': encoding },
        body: Buffer.from('0100000000', 'hex'),
      })
      expect(asSuccess(reply)).toEqual(fullSuccess)
      expect(ingress.stager.appended).toBe(0)
    },
  )

  test('a body that comes a byte at a time, the prefix too', async () => {
    await using ingress = await serveGrpc()
    await using session = await connectHttp2(ingress.port)
    const { stream, reply } = beginCall(session, { body: Buffer.alloc(0), open: true })
    for (const byte of framed(oneSpan)) {
      stream.write(Buffer.of(byte))
      await new Promise((resolve) => setImmediate(resolve))
    }
    stream.end()
    expect(asSuccess(await reply)).toEqual(fullSuccess)
    expect(ingress.stager.rows.map((row) => row.payload)).toEqual([oneSpan])
  })

  test('a call of grpc-js, with its own gzip too', async () => {
    await using ingress = await serveGrpc()
    for (const algorithm of [0, 2, 1]) {
      await using client = new GrpcJsClient(ingress.port, {
        'grpc.default_compression_algorithm': algorithm as 0 | 1 | 2,
      })
      const reply = await client.call(exportPathOf('traces'), bodies.traces)
      expect([reply.code, reply.message]).toEqual([0, Buffer.alloc(0)])
    }
    expect(ingress.stager.rows.map(({ encoding, items }) => [encoding, items])).toEqual([
      ['identity', 100],
      ['gzip', 100],
      ['gzip', 100],
    ])
  })
})

describe('answers', () => {
  test('OK is headers, a message and trailers, on the media type of gRPC', async () => {
    await using ingress = await serveGrpc()
    const { headers, trailers, body } = await callOnce(ingress.port, {
      headers: { 'x-request-id': 'mine 1' },
    })
    expect({ ...headers }).toMatchObject({
      ':status': 200,
      'content-type': 'application/grpc',
      'grpc-accept-encoding': 'identity,deflate,gzip,zstd',
      'x-request-id': 'mine 1',
    })
    expect([Object.entries(trailers ?? {}), body.toString('hex')]).toEqual([
      [['grpc-status', '0']],
      '0000000000',
    ])
  })

  test('what the policy dropped is OK with a partial success that counts it', async () => {
    await using ingress = await serveGrpc()
    ingress.decide({ outcome: 'drop', policy: 'drop' })
    for (const signal of everySignal) {
      const { status, body } = await callOnce(ingress.port, { signal, body: framed(bodies[signal]) })
      expect([status, body.readUInt32BE(1)]).toEqual([0, body.length - 5])
      const items = { traces: 100, metrics: 7, logs: 30, profiles: 1 }[signal]
      expect(readResponse(body.subarray(5))).toEqual({
        partialSuccess: {
          rejected: items,
          errorMessage: 'the queue is full and the overflow policy is drop: nothing of this request was kept',
        },
      })
    }
    expect(ingress.stager.appended).toBe(0)
  })

  test('x-request-id is taken, or made if it is none, and returned with every answer', async () => {
    await using ingress = await serveGrpc()
    const long = 'x'.repeat(129)
    for (const body of [framed(oneSpan), Buffer.from('junk')]) {
      for (const sent of ['abc-1', long, undefined]) {
        const reply = await callOnce(ingress.port, {
          headers: { ...(sent && { 'x-request-id': sent }) },
          body,
        })
        const returned = reply.headers['x-request-id']
        if (sent === 'abc-1') expect(returned).toBe(sent)
        else expect(returned).toMatch(/^[0-9a-f-]{36}$/)
      }
    }
    expect(ingress.stager.rows[0]?.requestId).toBe('abc-1')
  })

  test('calls are counted by signal and outcome under the transport grpc', async () => {
    await using ingress = await serveGrpc()
    await callOnce(ingress.port, { signal: 'logs', body: framed(bodies.logs) })
    await callOnce(ingress.port, { body: Buffer.from('junk') })
    await callOnce(ingress.port, { headers: { ':path': '/nope' } })
    const { values } = await ingress.metrics.requests.get()
    expect(values.map(({ labels, value }) => ({ ...labels, value }))).toEqual([
      { signal: 'logs', transport: 'grpc', outcome: 'accepted', value: 1 },
      { signal: 'traces', transport: 'grpc', outcome: 'malformed', value: 1 },
      { signal: 'none', transport: 'grpc', outcome: 'unknown_path', value: 1 },
    ])
  })
})

/** Each way to be refused by what stands behind the listener, and the status that must come back. */
const refusals: {
  title: string
  status: number
  message: string
  retried: boolean
  options?: GrpcServeOptions
  arrange?: (ingress: ServedGrpc) => unknown
  request?: GrpcRequest
}[] = [
  {
    title: 'malformed',
    status: 3,
    message: 'no OTLP',
    retried: false,
    request: { body: framed(Buffer.from('1234')) },
  },
  {
    title: 'too large as it says',
    status: 8,
    message: 'the body is larger than 100 bytes',
    retried: false,
    options: { maxBodyBytes: 100 },
    request: { body: framed(Buffer.alloc(101)) },
  },
  {
    title: 'too large unpacked',
    status: 8,
    message: 'the body is larger than 100 bytes when unpacked',
    retried: false,
    options: { maxBodyBytes: 100 },
    request: { headers: { 'grpc-encoding': 'gzip' }, body: framed(gzipSync(Buffer.alloc(101)), 1) },
  },
  {
    title: 'rate limited',
    status: 8,
    message: 'too many requests a second',
    retried: true,
    options: { rateLimit: { perSecond: 0.001, burst: 1 } },
    arrange: ({ port }) => callOnce(port),
  },
  {
    title: 'queue full',
    status: 8,
    message: 'the queue is full',
    retried: true,
    arrange: (ingress) => ingress.decide({ outcome: 'reject' }),
  },
  {
    title: 'database away',
    status: 14,
    message: 'the request could not be staged; send it again',
    retried: true,
    arrange: ({ stager }) => {
      stager.failure = new Failure('outage', 'connection refused', { code: 'ECONNREFUSED' })
    },
  },
  {
    title: 'refused by the database for its data',
    status: 3,
    message: 'the request cannot be stored: value too long',
    retried: false,
    arrange: ({ stager }) => {
      stager.failure = new Failure('data', 'value too long', { code: '22001' })
    },
  },
  {
    title: 'a bug of ours',
    status: 14,
    message: 'the request could not be handled; it may be sent again',
    retried: true,
    arrange: ({ stager }) => {
      stager.failure = new TypeError('x is not a function')
    },
  },
  {
    title: 'disk nearly full',
    status: 14,
    message: 'less than 1 GiB is free',
    retried: true,
    arrange: (ingress) => ingress.refuse('less than 1 GiB is free'),
  },
  {
    title: 'in-flight bytes used up',
    status: 14,
    message: 'too many bytes are in flight',
    retried: true,
    options: { inflightBytes: 10 },
  },
]

describe('refusals', () => {
  test.each(refusals)(
    'E1: $title is trailers alone, one frame of headers with END_STREAM',
    async ({ status, message, retried, options, arrange, request }) => {
      await using ingress = await serveGrpc(options)
      await arrange?.(ingress)
      const appended = ingress.stager.appended
      const reply = await callOnce(ingress.port, request)
      expect(reply).toMatchObject({ status, trailersOnly: true, trailers: undefined, rstCode: 0 })
      expect(reply.message).toContain(message === 'no OTLP' ? '' : message)
      expect(reply.body.length).toBe(0)
      const told = ['grpc-status-details-bin', 'google.rpc.retryinfo-bin'].map(
        (name) => name in reply.headers,
      )
      expect(told).toEqual([retried, retried])
      expect(ingress.stager.appended - appended).toBe(ingress.stager.failure === undefined ? 0 : 1)
      expect(ingress.budget.usedBytes).toBe(0)
    },
  )

  test.each(refusals.filter(({ title }) => title !== 'a bug of ours'))(
    'grpc-js hears the same when $title',
    async ({ status, options, arrange, request }) => {
      await using ingress = await serveGrpc(options)
      await arrange?.(ingress)
      await using client = new GrpcJsClient(ingress.port, {
        'grpc.default_compression_algorithm': request?.headers === undefined ? 0 : 2,
        'grpc.enable_retries': 0,
      })
      const sent = request?.headers === undefined ? request?.body?.subarray(5) : Buffer.alloc(101)
      const reply = await client.call(exportPathOf('traces'), sent ?? oneSpan)
      expect(reply.code).toBe(status)
    },
  )

  test('a connection lives on after every refusal, with what it sent unread', async () => {
    await using ingress = await serveGrpc({ rateLimit: { perSecond: 0.001, burst: 1 } })
    await using session = await connectHttp2(ingress.port)
    expect((await beginCall(session).reply).status).toBe(0)
    // Together more than the windows of the connection: what is left unread must not fill them.
    for (let round = 0; round < 60; round++) {
      const replies = await Promise.all(
        [1, 2].map(() => beginCall(session, { body: framed(Buffer.alloc(200_000)) }).reply),
      )
      expect(replies.map(inShort)).toEqual(
        Array(2).fill({ status: 8, trailersOnly: true, message: 'too many requests a second' }),
      )
    }
  })
})
