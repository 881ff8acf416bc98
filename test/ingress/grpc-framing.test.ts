import { gzipSync, zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeGrpcMessage, frame, timeoutMsOf, unframe } from '../../src/ingress/grpc-framing.ts'
import { OtlpError } from '../../src/otlp/error.ts'
import {
  asSuccess,
  callOnce,
  exportPathOf,
  framed,
  fullSuccess,
  GrpcJsClient,
  inShort,
  serveGrpc,
} from './grpc-serve.ts'
import { FrameConnection, frameOf, frameTypes } from './http2-frames.ts'
import { oneSpan, payload } from './serve.ts'

const traces = payload('js-traces.pb')
const gzip = { 'grpc-encoding': 'gzip' }

/** Calls that are not one message, with what their sender reads. */
const broken: {
  title: string
  body: Buffer | undefined
  message: string | RegExp
  headers?: Record<string, string>
}[] = [
  { title: 'no message', body: undefined, message: 'the call has no message; an export is exactly one' },
  {
    title: 'no message, with an empty body',
    body: Buffer.alloc(0),
    message: 'the call has no message; an export is exactly one',
  },
  {
    title: 'a cut-off prefix',
    body: framed(oneSpan).subarray(0, 4),
    message: 'the call ends after 4 of the 5 bytes before a message',
  },
  {
    title: 'a cut-off message',
    body: framed(oneSpan).subarray(0, -1),
    message: `the message is cut off: ${oneSpan.length - 1} of the ${oneSpan.length} bytes came`,
  },
  {
    title: 'two messages',
    body: Buffer.concat([framed(oneSpan), framed(oneSpan)]),
    message: `something follows the message of ${oneSpan.length} bytes; an export is exactly one`,
  },
  {
    title: 'two empty messages',
    body: Buffer.alloc(10),
    message: 'something follows the message of 0 bytes; an export is exactly one',
  },
  {
    title: 'a byte after the message',
    body: Buffer.concat([framed(oneSpan), Buffer.of(0)]),
    message: `something follows the message of ${oneSpan.length} bytes; an export is exactly one`,
  },
  {
    title: 'flag 2',
    body: framed(oneSpan, 2),
    message: 'the compressed flag of the message is 2; 0 and 1 are known',
  },
  {
    title: 'flag 255 with an encoding',
    headers: gzip,
    body: framed(oneSpan, 255),
    message: 'the compressed flag of the message is 255; 0 and 1 are known',
  },
  {
    title: 'compressed without an encoding',
    body: framed(gzipSync(oneSpan), 1),
    message: 'the message is marked as compressed, but grpc-encoding does not say how',
  },
  {
    title: 'compressed, empty, without an encoding',
    body: Buffer.from('0100000000', 'hex'),
    message: 'the message is marked as compressed, but grpc-encoding does not say how',
  },
  {
    title: 'compressed with identity',
    headers: { 'grpc-encoding': 'identity' },
    body: framed(oneSpan, 1),
    message: 'the message is marked as compressed, but grpc-encoding does not say how',
  },
  {
    title: 'said gzip, is not',
    headers: gzip,
    body: framed(traces, 1),
    message: /^the body is not gzip: .+/,
  },
  {
    title: 'gzip cut off',
    headers: gzip,
    body: framed(gzipSync(traces).subarray(0, 900), 1),
    message: /^the body is not gzip: .+/,
  },
  {
    title: 'bytes after gzip',
    headers: gzip,
    body: framed(Buffer.concat([gzipSync(oneSpan), Buffer.alloc(8)]), 1),
    message: /^the gzip body ends after \d+ of its \d+ bytes$/,
  },
  {
    title: 'said zstd, is not',
    headers: { 'grpc-encoding': 'zstd' },
    body: framed(traces, 1),
    message: /^the body is not zstd: .+/,
  },
  {
    title: 'zstd cut off',
    headers: { 'grpc-encoding': 'zstd' },
    body: framed(zstdCompressSync(traces).subarray(0, 900), 1),
    message: /^the body is not zstd: .+/,
  },
  {
    title: 'said deflate, is not',
    headers: { 'grpc-encoding': 'deflate' },
    body: framed(traces, 1),
    message: /^the body is not deflate: .+/,
  },
]

describe('E3: what is not one good message', () => {
  test.each(broken)('E3: $title is INVALID_ARGUMENT with a sentence', async ({ body, headers, message }) => {
    await using ingress = await serveGrpc()
    const reply = await callOnce(ingress.port, { body, ...(headers && { headers }) })
    expect(inShort(reply)).toEqual({
      status: 3,
      trailersOnly: true,
      message: typeof message === 'string' ? message : expect.stringMatching(message),
    })
    expect([ingress.stager.appended, ingress.budget.usedBytes, ingress.lines()]).toEqual([0, 0, []])
  })

  test('E3: an unknown encoding is UNIMPLEMENTED and the answer names those that are known', async () => {
    await using ingress = await serveGrpc()
    for (const [encoding, quotedEncoding] of [
      ['snappy', '"snappy"'],
      ['br', '"br"'],
      ['gzip, deflate', '"gzip, deflate"'],
    ] as const) {
      const reply = await callOnce(ingress.port, {
        headers: { 'grpc-encoding': encoding },
        body: framed(oneSpan, 1),
      })
      expect(inShort(reply)).toEqual({
        status: 12,
        trailersOnly: true,
        message: `grpc-encoding is ${quotedEncoding}; known are identity,deflate,gzip,zstd`,
      })
      expect(reply.headers['grpc-accept-encoding']).toBe('identity,deflate,gzip,zstd')
    }
    expect(ingress.stager.appended).toBe(0)
  })

  test('a client that resets its call in mid-message is gone, and so are its bytes', async () => {
    await using ingress = await serveGrpc()
    await using connection = new FrameConnection(ingress.port)
    connection.beginExport(1, framed(traces).subarray(0, 5_000), { end: false })
    await expect.poll(() => ingress.budget.usedBytes).toBe(5_000)
    connection.write(frameOf(frameTypes.rstStream, 0, 1, Buffer.of(0, 0, 0, 8)))
    await expect.poll(() => ingress.budget.usedBytes).toBe(0)
    expect([ingress.stager.appended, ingress.lines()]).toEqual([0, []])
    const { values } = await ingress.metrics.requests.get()
    expect(values.map(({ labels }) => labels.outcome)).toEqual(['gone'])
  })
})

describe('what is no export', () => {
  test('an unknown method is UNIMPLEMENTED and the answer names those that there are', async () => {
    await using ingress = await serveGrpc({ signals: ['traces', 'logs'] })
    const service = 'opentelemetry.proto.collector'
    for (const path of [
      '/',
      '/v1/traces',
      `/${service}.trace.v1.TraceService/Nope`,
      `${exportPathOf('traces')}/`,
      exportPathOf('metrics'),
      '/grpc.health.v1.Health/Nope',
    ]) {
      const reply = await callOnce(ingress.port, { headers: { ':path': path } })
      expect(inShort(reply)).toEqual({
        status: 12,
        trailersOnly: true,
        message: `there is no such method; OTLP is taken by Export of ${service}.trace.v1.TraceService, ${service}.logs.v1.LogsService`,
      })
    }
    await using client = new GrpcJsClient(ingress.port)
    expect((await client.call('/nope.Nope/Nope', oneSpan)).code).toBe(12)
    expect(ingress.stager.appended).toBe(0)
  })

  test.each(['GET', 'PUT', 'HEAD', 'OPTIONS', 'CONNECT'])('%s is 405 in plain HTTP', async (method) => {
    await using ingress = await serveGrpc()
    const headers =
      method === 'CONNECT'
        ? { ':method': method, ':authority': 'a:1', ':path': undefined, ':scheme': undefined }
        : { ':method': method }
    const reply = await callOnce(ingress.port, { headers, body: undefined })
    expect([reply.headers[':status'], reply.headers.allow, reply.rstCode]).toEqual([405, 'POST', 0])
    const body = '{"code":12,"message":"only POST is served here"}'
    expect(reply.body.toString()).toBe(method === 'HEAD' ? '' : body)
  })

  test.each([
    'application/json',
    'application/x-protobuf',
    'application/grpc-web',
    'application/grpc+json',
    '',
  ])('the media type "%s" is 415 in plain HTTP', async (type) => {
    await using ingress = await serveGrpc()
    const reply = await callOnce(ingress.port, { headers: { 'content-type': type } })
    expect([reply.headers[':status'], reply.headers['content-type'], reply.status]).toEqual([
      415,
      'application/json',
      undefined,
    ])
    expect(reply.body.toString()).toBe('{"code":12,"message":"the Content-Type must be application/grpc"}')
    expect(ingress.stager.appended).toBe(0)
  })

  test.each(['application/grpc+proto', 'APPLICATION/GRPC', 'application/grpc; charset=utf-8'])(
    'the media type "%s" is taken',
    async (type) => {
      await using ingress = await serveGrpc()
      const reply = await callOnce(ingress.port, { headers: { 'content-type': type } })
      expect(asSuccess(reply)).toEqual(fullSuccess)
    },
  )
})

describe('E7: long and odd error texts', () => {
  /** A span with an attribute whose key has 100 kB and whose value is text where a number of fields belongs. */
  function spanWithKey(key: Buffer): Buffer {
    const field = (tag: number, content: Buffer) => {
      const length: number[] = []
      let left = content.length
      for (; left > 127; left >>>= 7) length.push((left & 127) | 128)
      return Buffer.concat([Buffer.of(tag, ...length, left), content])
    }
    const value = field(0x12, Buffer.of(0x1a, 0x01))
    const span = field(0x4a, Buffer.concat([field(0x0a, key), value]))
    return field(0x0a, field(0x12, field(0x12, span)))
  }

  test('E7: an error about a span with a key of 100 kB is told in under 1 kB', async () => {
    await using ingress = await serveGrpc()
    for (const key of ['k'.repeat(100_000), 'ü%\n😀'.repeat(10_000)]) {
      const reply = await callOnce(ingress.port, { body: framed(spanWithKey(Buffer.from(key))) })
      const raw = reply.headers['grpc-message'] as string
      expect(inShort(reply)).toMatchObject({ status: 3, trailersOnly: true })
      expect(raw.length).toBeGreaterThan(10)
      expect(raw.length).toBeLessThanOrEqual(1000)
    }
  })

  test('E7: an error of the database with 100 kB of odd text is cut and encoded', async () => {
    await using ingress = await serveGrpc()
    const odd = 'é%\r\n\u0000\u007f😀\ud800'
    ingress.refuse(odd.repeat(10_000))
    const reply = await callOnce(ingress.port)
    const raw = reply.headers['grpc-message'] as string
    expect([reply.status, raw.length <= 1000, raw.length > 950]).toEqual([14, true, true])
    expect(raw).toMatch(/^(?:[\x20-\x24\x26-\x7e]|%[0-9A-F]{2})+$/)
    expect(`${odd.toWellFormed().repeat(100)}`.startsWith(reply.message ?? 'nothing')).toBe(true)
    const allTrailers = Object.entries(reply.headers).reduce(
      (sum, [name, value]) => sum + name.length + String(value).length,
      0,
    )
    expect(allTrailers).toBeLessThan(4096)
  })

  test('E7: a text is encoded whole, or to its last character within 1,000 bytes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 2000 }), (text) => {
        const encoded = encodeGrpcMessage(text)
        const decoded = decodeURIComponent(encoded)
        return (
          encoded.length <= 1000 &&
          /^(?:[\x20-\x24\x26-\x7e]|%[0-9A-F]{2})*$/.test(encoded) &&
          text.toWellFormed().startsWith(decoded) &&
          (decoded === text.toWellFormed() || encoded.length > 988)
        )
      }),
    )
  })
})

describe('pieces', () => {
  test('what was framed is unframed as it was, and nothing shorter or longer is', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const message = Buffer.from(bytes)
        expect(unframe(frame(message))).toEqual({ compressed: false, message })
        for (const wrong of [frame(message).subarray(0, -1), Buffer.concat([frame(message), Buffer.of(7)])]) {
          expect(() => unframe(wrong)).toThrow(OtlpError)
        }
      }),
    )
  })

  test('grpc-timeout is read in every unit', () => {
    const read = ['1H', '1M', '1S', '1m', '1u', '1n', '0n', '99999999H', '00000001S'].map(timeoutMsOf)
    expect(read).toEqual([3_600_000, 60_000, 1000, 1, 1e-3, 1e-6, 0, 99_999_999 * 3_600_000, 1000])
    expect(timeoutMsOf(undefined)).toBe(Number.POSITIVE_INFINITY)
  })

  test('a grpc-timeout that is none is INVALID_ARGUMENT and is quoted', async () => {
    await using ingress = await serveGrpc()
    for (const bad of ['1', 'S', '1s', '-1S', '1.5S', '123456789S', '1S x', '1S, 2S', 'x'.repeat(5000)]) {
      const reply = await callOnce(ingress.port, { headers: { 'grpc-timeout': bad } })
      expect(inShort(reply)).toEqual({
        status: 3,
        trailersOnly: true,
        message: `grpc-timeout is ${JSON.stringify(bad.slice(0, 20))}; 1 to 8 digits and one of H, M, S, m, u, n belong there`,
      })
    }
    expect(ingress.stager.appended).toBe(0)
  })
})
