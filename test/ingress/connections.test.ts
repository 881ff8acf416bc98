import http from 'node:http'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import {
  chunk,
  head,
  lastChunk,
  oneSpan,
  PROTOBUF,
  RawConnection,
  send,
  serveIngress,
  spanOfBytes,
} from './serve.ts'

const MIB = 1024 * 1024
const post = (body: Buffer) => Buffer.concat([Buffer.from(head(`Content-Length: ${body.length}`)), body])

// Hono and its adapter print to the console what nobody caught; the log is to hold JSON lines only.
beforeEach(() => {
  for (const method of ['log', 'info', 'warn', 'error'] as const) vi.spyOn(console, method)
})
afterEach(() => {
  for (const method of ['log', 'info', 'warn', 'error'] as const)
    expect(console[method]).not.toHaveBeenCalled()
  vi.restoreAllMocks()
})

test('D1: connections that say nothing for 5.99, 6.00, 6.01 and 7 s between their requests are never closed', async () => {
  await using ingress = await serveIngress()
  // Node by itself closes after 5 s and one more; SDKs send every 5.
  const pausesMs = [...Array.from({ length: 48 }, (_, index) => 5_990 + 10 * (index % 3)), 7_000, 7_000]
  const rounds = 3
  const serve = async (pauseMs: number) => {
    const connection = new RawConnection(ingress.port)
    for (let round = 1; round <= rounds; round++) {
      if (round > 1) await new Promise((resolve) => setTimeout(resolve, pauseMs))
      await connection.write(post(oneSpan)).until(new RegExp(`(?:200 OK[\\s\\S]*?){${round}}`))
    }
    connection.socket.destroy()
  }
  await Promise.all(pausesMs.map(serve))
  expect(ingress.stager.rows.length).toBe(rounds * pausesMs.length)
})

test('HTTP/1.0 without a Host is served', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  connection.write(
    `POST /v1/traces HTTP/1.0\r\nContent-Type: ${PROTOBUF}\r\nContent-Length: ${oneSpan.length}\r\n\r\n`,
  )
  await connection.write(oneSpan).until(/^HTTP\/1\.1 200 OK/)
  await connection.closed
  connection.socket.destroy()
})

test('a connection that idles is kept for over a minute, and the answer says so', async () => {
  await using ingress = await serveIngress()
  const agent = new http.Agent({ keepAlive: true })
  const answer = await send(ingress.port, { body: oneSpan, agent })
  agent.destroy()
  expect([answer.headers.connection, answer.headers['keep-alive']]).toEqual(['keep-alive', 'timeout=620'])
})

test('one connection serves on after every error whose body was small or read, declared or in chunks', async () => {
  let full: string | undefined
  await using ingress = await serveIngress({
    maxBodyBytes: 200 * 1024,
    inflightBytes: MIB,
    refusal: () => full,
  })
  const chunked =
    (...lines: string[]) =>
    (body: Buffer) =>
      Buffer.concat([
        Buffer.from([...lines, 'Host: a', 'Transfer-Encoding: chunked', '', ''].join('\r\n')),
        chunk(body),
        lastChunk,
      ])
  const declared =
    (...lines: string[]) =>
    (body: Buffer) =>
      Buffer.concat([
        Buffer.from([...lines, 'Host: a', `Content-Length: ${body.length}`, '', ''].join('\r\n')),
        body,
      ])
  const type = `Content-Type: ${PROTOBUF}`
  const hello = Buffer.from('hello')
  const refused: [number, (write: typeof chunked) => Buffer, (() => void)?][] = [
    [400, (write) => write('POST /v1/traces HTTP/1.1', type)(hello)],
    [400, (write) => write('POST /v1/traces HTTP/1.1', type)(Buffer.alloc(100_000, 1))],
    [404, (write) => write('POST /nope HTTP/1.1')(hello)],
    [405, (write) => write('PATCH /v1/traces HTTP/1.1')(hello)],
    [405, (write) => write('GET /v1/traces HTTP/1.1')(hello)],
    [413, (write) => write('POST /v1/traces HTTP/1.1', type)(Buffer.alloc(250 * 1024))],
    [415, (write) => write('POST /v1/traces HTTP/1.1')(hello)],
    [
      429,
      (write) => write('POST /v1/traces HTTP/1.1', type)(oneSpan),
      () => ingress.decide({ outcome: 'reject' }),
    ],
    [
      503,
      (write) => write('POST /v1/traces HTTP/1.1', type)(oneSpan),
      () => {
        full = 'the disk is full'
      },
    ],
    [
      503,
      (write) => write('POST /v1/traces HTTP/1.1', type)(oneSpan),
      () => {
        ingress.stager.failure = new Failure('outage', 'connection refused', { code: 'ECONNREFUSED' })
      },
    ],
  ]
  const connection = new RawConnection(ingress.port)
  const pattern: string[] = []
  for (const write of [declared, chunked]) {
    for (const [status, request, arrange] of refused) {
      arrange?.()
      pattern.push(`HTTP/1.1 ${status} [\\s\\S]*`)
      await connection.write(request(write)).until(new RegExp(pattern.join('')))
      full = undefined
      ingress.stager.failure = undefined
      ingress.decide({ outcome: 'stage' })
    }
  }
  await connection.write(post(oneSpan)).until(new RegExp([...pattern, 'HTTP/1.1 200 '].join('')))
  expect(connection.received.includes('Connection: close')).toBe(false)
  expect(ingress.stager.rows.length).toBe(1)
  connection.socket.destroy()
})

test('a connection is kept through 429 of a limited rate, declared or in chunks', async () => {
  await using ingress = await serveIngress({ rateLimit: { perSecond: 0.001, burst: 1 } })
  const connection = new RawConnection(ingress.port)
  const chunked = Buffer.concat([Buffer.from(head('Transfer-Encoding: chunked')), chunk(oneSpan), lastChunk])
  connection.write(Buffer.concat([post(oneSpan), post(oneSpan), chunked, post(oneSpan)]))
  await connection.until(/HTTP\/1\.1 200 [\s\S]*(?:HTTP\/1\.1 429 [\s\S]*){3}/)
  expect(connection.received.includes('Connection: close')).toBe(false)
  connection.socket.destroy()
})

test('D3: an upload that expects to be told is refused before it is sent: too large, no room, rate, path', async () => {
  const expects = (path: string, length: number) =>
    `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Type: ${PROTOBUF}\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`
  await using ingress = await serveIngress({ inflightBytes: MIB, rateLimit: { perSecond: 0.001, burst: 3 } })
  const answers = []
  for (const request of [
    expects('/v1/traces', 999_999_999),
    expects('/v1/traces', 2 * MIB),
    expects('/nope', 100),
    expects('/v1/traces', 100),
  ]) {
    const connection = new RawConnection(ingress.port)
    await connection.write(request).until(/\r\n\r\n[\s\S]+/)
    answers.push(connection.received.split('\r\n')[0])
    connection.socket.destroy()
  }
  expect(answers).toEqual([
    'HTTP/1.1 413 Payload Too Large',
    'HTTP/1.1 503 Service Unavailable',
    'HTTP/1.1 404 Not Found',
    'HTTP/1.1 429 Too Many Requests',
  ])
})

test('D3: an upload that expects to be told and is welcome hears 100, then 200', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  connection.write(head('Expect: 100-continue', `Content-Length: ${oneSpan.length}`))
  await connection.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/)
  await connection.write(oneSpan).until(/HTTP\/1\.1 200 OK/)
  connection.socket.destroy()
})

test('an expectation that nobody knows is passed over', async () => {
  await using ingress = await serveIngress()
  const answer = await send(ingress.port, {
    headers: { 'content-type': PROTOBUF, expect: 'the-unexpected' },
    body: oneSpan,
  })
  expect(answer.status).toBe(200)
})

test('D3: a client that goes on sending 30 MB can still read why it was refused', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  connection.write(head(`Content-Length: ${30 * MIB}`))
  for (let sent = 0; sent < 30; sent++) connection.write(Buffer.alloc(MIB))
  await connection.closed
  expect(connection.received.split('\r\n')[0]).toBe('HTTP/1.1 413 Payload Too Large')
  expect(connection.received.includes('Connection: close')).toBe(true)
  connection.socket.destroy()
})

test('D3: a client that stops in the middle of a refused upload does not hold its connection', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  connection.write(head(`Content-Length: ${30 * MIB}`)).write(Buffer.alloc(1000))
  await connection.closed
  expect(connection.received.split('\r\n')[0]).toBe('HTTP/1.1 413 Payload Too Large')
  connection.socket.destroy()
})

test('C8: a chunked body is read whatever its chunks are: single bytes, extensions, trailers, compressed', async () => {
  await using ingress = await serveIngress()
  const packed = gzipSync(oneSpan)
  const chunked = head('Transfer-Encoding: chunked')
  const forms = [
    [chunked, ...[...oneSpan].map((byte) => chunk(Buffer.from([byte]))), lastChunk],
    [chunked, chunk(oneSpan, ';name=value;other="x y"'), lastChunk],
    [chunked, chunk(oneSpan), '0\r\nX-Checksum: 1\r\nX-Other: 2\r\n\r\n'],
    [head('Transfer-Encoding: chunked', 'Content-Encoding: gzip'), chunk(packed), lastChunk],
  ]
  for (const parts of forms) {
    const connection = new RawConnection(ingress.port)
    for (const part of parts) connection.write(part)
    await connection.until(/^HTTP\/1\.1 200 OK/)
    connection.socket.destroy()
  }
  expect(ingress.stager.rows.map(({ payload }) => payload)).toEqual([oneSpan, oneSpan, oneSpan, packed])
})

test('C8: a chunked body that is cut off stages nothing and logs nothing but JSON', async () => {
  await using ingress = await serveIngress()
  const cut = new RawConnection(ingress.port)
  cut.write(head('Transfer-Encoding: chunked')).write('20\r\n').write(oneSpan.subarray(0, 10))
  await expect.poll(() => ingress.budget.usedBytes).toBe(10)
  cut.socket.destroy()
  await expect.poll(() => ingress.budget.usedBytes).toBe(0)
  expect([ingress.stager.appended, ingress.lines()]).toEqual([0, []])
})

test('C8: chunks that are not HTTP are 400 in the request’s own format', async () => {
  await using ingress = await serveIngress()
  const broken = new RawConnection(ingress.port)
  broken.write(head('Transfer-Encoding: chunked')).write(chunk(oneSpan)).write('what is this\r\n')
  const received = await broken.until(/HTTP\/1\.1 400 [\s\S]*\r\n\r\n[\s\S]+/)
  expect(received.includes(`Content-Type: ${PROTOBUF}`)).toBe(true)
  expect([ingress.stager.appended, ingress.budget.usedBytes]).toEqual([0, 0])
  broken.socket.destroy()
})

test('D5: a thousand hang-ups after a whole body: each row committed once, nothing logged, nothing held', async () => {
  await using ingress = await serveIngress()
  for (let round = 1; round <= 10; round++) {
    const release = ingress.stager.hold()
    const connections = Array.from({ length: 200 }, () =>
      new RawConnection(ingress.port).write(post(oneSpan)),
    )
    await ingress.stager.whenAppended(round * 200)
    for (const [index, { socket }] of connections.entries()) if (index % 2 === 0) socket.resetAndDestroy()
    const open = connections.filter(({ socket }) => !socket.destroyed)
    release()
    await Promise.all(open.map((connection) => connection.until(/HTTP\/1\.1 200 OK/)))
    for (const { socket } of open) socket.destroy()
  }
  await expect.poll(() => ingress.budget.usedBytes).toBe(0)
  expect([ingress.stager.rows.length, ingress.settled.length, ingress.lines()]).toEqual([2000, 2000, []])
})

test('D5: hang-ups in the middle of a body stage nothing and give their bytes back', async () => {
  await using ingress = await serveIngress()
  const connections = Array.from({ length: 50 }, () =>
    new RawConnection(ingress.port).write(head('Content-Length: 100000')).write(Buffer.alloc(1000)),
  )
  await expect.poll(() => ingress.budget.usedBytes).toBe(50_000)
  for (const { socket } of connections) socket.resetAndDestroy()
  await expect.poll(() => ingress.budget.usedBytes).toBe(0)
  expect([ingress.stager.appended, ingress.lines()]).toEqual([0, []])
})

test('a body of 300 kB in many small writes is put together as it was sent', async () => {
  await using ingress = await serveIngress()
  const body = spanOfBytes(300_000)
  const connection = new RawConnection(ingress.port)
  connection.write(head(`Content-Length: ${body.length}`))
  for (let at = 0; at < body.length; at += 7_001) connection.write(body.subarray(at, at + 7_001))
  await connection.until(/^HTTP\/1\.1 200 OK/)
  expect(ingress.stager.rows[0]?.payload.equals(body)).toBe(true)
  connection.socket.destroy()
})
