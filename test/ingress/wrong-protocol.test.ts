import http from 'node:http'
import { connect } from 'node:http2'
import https from 'node:https'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { head, JSON_TYPE, oneSpan, PROTOBUF, RawConnection, readStatus, serveIngress } from './serve.ts'

// What nobody caught would be printed; the log is to hold JSON lines only.
beforeEach(() => {
  for (const method of ['log', 'info', 'warn', 'error'] as const) vi.spyOn(console, method)
})
afterEach(() => {
  for (const method of ['log', 'info', 'warn', 'error'] as const)
    expect(console[method]).not.toHaveBeenCalled()
  vi.restoreAllMocks()
})

test('E8: what is not HTTP/1 is answered with a sentence, and is one line in the log', async () => {
  await using ingress = await serveIngress()
  const sent = ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', '\x16\x03\x01\x02\x00\x01', 'hello\r\n\r\n']
  const messages = []
  for (const bytes of sent) {
    const connection = new RawConnection(ingress.port)
    await connection.write(bytes).closed
    const [top = '', body = ''] = connection.received.split('\r\n\r\n')
    const answer = { status: 400, headers: { 'content-type': JSON_TYPE }, body: Buffer.from(body) }
    messages.push([top.split('\r\n')[0], readStatus(answer).message])
    connection.socket.destroy()
  }
  expect(messages).toEqual([
    [
      'HTTP/1.1 400 Bad Request',
      'this port takes OTLP/HTTP over HTTP/1.1; OTLP/gRPC goes to its own port, 4317 by default',
    ],
    ['HTTP/1.1 400 Bad Request', 'this port takes plain HTTP, not TLS'],
    ['HTTP/1.1 400 Bad Request', 'this is not HTTP/1.1'],
  ])
  expect(ingress.lines().map(({ event, level, message }) => [event, level, message])).toEqual(
    messages.map(([, message]) => ['http_malformed', 'info', message]),
  )
})

test('a head of 20 kB is 431', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  connection.write(head(`X-Long: ${'x'.repeat(20_000)}`))
  await connection.until(
    /^HTTP\/1\.1 431 Request Header Fields Too Large\r\n[\s\S]*"the head of the request is larger than 16 KiB"/,
  )
  connection.socket.destroy()
})

test('E8: a real HTTP/2 client and a real TLS client fail at once, and the log says what they did', async () => {
  await using ingress = await serveIngress()
  const session = connect(`http://127.0.0.1:${ingress.port}`)
  const failed = new Promise((resolve) => session.on('error', resolve))
  await failed
  const outgoing = https.request({ host: '127.0.0.1', port: ingress.port, method: 'POST', agent: false })
  const refused = new Promise<NodeJS.ErrnoException>((resolve) => outgoing.on('error', resolve))
  outgoing.end(oneSpan)
  expect((await refused).message).toMatch(/wrong version number/i)
  expect(ingress.lines().map(({ event, message }) => [event, message])).toEqual([
    [
      'http_malformed',
      'this port takes OTLP/HTTP over HTTP/1.1; OTLP/gRPC goes to its own port, 4317 by default',
    ],
    ['http_malformed', 'this port takes plain HTTP, not TLS'],
  ])
})

test('E8: 300 connections of the wrong kind are at most 20 lines a second, that say how many they stand for', async () => {
  const ingress = await serveIngress()
  const startedMs = performance.now()
  for (let sent = 0; sent < 300; sent += 50) {
    const connections = Array.from({ length: 50 }, () =>
      new RawConnection(ingress.port).write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    )
    await Promise.all(connections.map(({ closed }) => closed))
    for (const { socket } of connections) socket.destroy()
  }
  const seconds = Math.ceil((performance.now() - startedMs) / 1000)
  await ingress[Symbol.asyncDispose]()
  const lines = ingress.lines()
  const stoodFor = lines.reduce((sum, { count }) => sum + ((count as number | undefined) ?? 1), 0)
  expect([new Set(lines.map(({ event }) => event)), stoodFor]).toEqual([new Set(['http_malformed']), 300])
  expect(lines.length).toBeLessThanOrEqual(21 * seconds)
})

test('an offer to go over to h2c, as Java makes it, is passed over: the request is answered in HTTP/1.1', async () => {
  await using ingress = await serveIngress()
  const upgrade = [
    'Connection: Upgrade, HTTP2-Settings',
    'Upgrade: h2c',
    'HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk',
  ]
  const connection = new RawConnection(ingress.port)
  connection.write(head(...upgrade, `Content-Length: ${oneSpan.length}`)).write(oneSpan)
  await connection.until(/^HTTP\/1\.1 200 OK\r\n/)
  expect(ingress.stager.rows.length).toBe(1)
  connection.socket.destroy()
})

test('CONNECT is answered by closing the connection, and harms nobody', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  await connection.write('CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n').closed
  const agent = new http.Agent()
  const outgoing = http.request({
    port: ingress.port,
    host: '127.0.0.1',
    method: 'POST',
    path: '/v1/traces',
    headers: { 'content-type': PROTOBUF },
    agent,
  })
  const answered = new Promise<http.IncomingMessage>((resolve) => outgoing.on('response', resolve))
  outgoing.end(oneSpan)
  const answer = await answered
  answer.resume()
  expect(answer.statusCode).toBe(200)
  connection.socket.destroy()
})

test('a request without a Host, and CONNECT, are refused with a sentence', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  connection.write('POST /v1/traces HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
  const hostless = await connection.until(/\}$/)
  expect(hostless).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
  expect(hostless).toMatch(/"a request of HTTP\/1\.1 must have a Host"/)
  connection.socket.destroy()
  const tunnel = new RawConnection(ingress.port)
  tunnel.write('CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n')
  expect(await tunnel.until(/\}$/)).toMatch(
    /^HTTP\/1\.1 405 Method Not Allowed\r\n[\s\S]*"only POST is served here"/,
  )
  tunnel.socket.destroy()
})
