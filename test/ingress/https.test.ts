import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import https from 'node:https'
import { createConnection } from 'node:net'
import tls from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { TlsCertificate } from '../../src/ingress/tls.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { TestAuthority } from './certificates.ts'
import {
  collectingLog,
  head,
  JSON_TYPE,
  oneSpan,
  PROTOBUF,
  RawConnection,
  readStatus,
  serveIngress,
} from './serve.ts'

const post = Buffer.concat([Buffer.from(head(`Content-Length: ${oneSpan.length}`)), oneSpan])
const never = new AbortController().signal
let ca: Buffer
let certificate: TlsCertificate

beforeAll(async () => {
  const authority = await TestAuthority.open('https')
  const { certFile, keyFile } = await authority.issue('server')
  ca = readFileSync(authority.certFile)
  certificate = new TlsCertificate({
    files: { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile, TLS_CLIENT_CA_FILE: undefined },
    log: collectingLog().log,
    metrics: createMetrics(),
    clock: systemClock,
  })
  await certificate.start()
})
afterAll(() => certificate.stop())

/** A connection that has agreed on TLS. */
async function connectTls(port: number, options: tls.ConnectionOptions = {}): Promise<tls.TLSSocket> {
  const socket = tls.connect({ port, host: '127.0.0.1', servername: 'localhost', ca, ...options })
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject))
  return socket
}

/** Everything until the connection ends. */
async function receivedBy(socket: tls.TLSSocket): Promise<string> {
  let received = ''
  for await (const bytes of socket) received += bytes
  return received
}

test('requests over TLS are taken on one connection, good and bad ones', async () => {
  await using ingress = await serveIngress({ tls: certificate })
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca, servername: 'localhost' })
  const ports = new Set()
  const statuses = []
  for (const body of [oneSpan, Buffer.from('1234'), oneSpan]) {
    const outgoing = https.request({
      host: '127.0.0.1',
      port: ingress.port,
      method: 'POST',
      path: '/v1/traces',
      headers: { 'content-type': PROTOBUF },
      agent,
    })
    const answered = new Promise<import('node:http').IncomingMessage>((resolve, reject) =>
      outgoing.once('response', resolve).once('error', reject),
    )
    outgoing.end(body)
    const answer = await answered
    ports.add(answer.socket.localPort)
    for await (const _ of answer);
    statuses.push(answer.statusCode)
  }
  agent.destroy()
  expect([statuses, ports.size, ingress.stager.rows.length]).toEqual([[200, 400, 200], 1, 2])
})

test('plain HTTP on a port of TLS is told so in plain HTTP, and is one line in the log', async () => {
  await using ingress = await serveIngress({ tls: certificate })
  const connection = new RawConnection(ingress.port)
  await connection.write(post).closed
  const [top = '', body = ''] = connection.received.split('\r\n\r\n')
  const answer = { status: 400, headers: { 'content-type': JSON_TYPE }, body: Buffer.from(body) }
  expect([top.split('\r\n')[0], readStatus(answer)]).toEqual([
    'HTTP/1.1 400 Bad Request',
    { code: 3, message: 'this port takes TLS only' },
  ])
  expect(ingress.lines().map(({ event, reason }) => [event, reason])).toEqual([
    ['http_malformed', 'wrong_protocol'],
  ])
  connection.socket.destroy()
})

test('a client that does not agree on TLS is one line in the log, and no broken HTTP', async () => {
  await using ingress = await serveIngress({ tls: certificate })
  await expect(connectTls(ingress.port, { ca: [] })).rejects.toThrow(/unable to verify|self.signed/i)
  await expect
    .poll(() => ingress.lines().map(({ event, level }) => [event, level]))
    .toEqual([['tls_handshake_failed', 'info']])
})

test('what is no HTTP within TLS is answered within TLS', async () => {
  await using ingress = await serveIngress({ tls: certificate })
  const socket = await connectTls(ingress.port)
  socket.write('hello\r\n\r\n')
  expect(await receivedBy(socket)).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n[\s\S]*this is not HTTP\/1\.1/)
})

test('a slow body within TLS is 503 when its time is over', async () => {
  await using ingress = await serveIngress({ tls: certificate, requestTimeoutMs: 1_000 })
  const socket = await connectTls(ingress.port)
  socket.write(head('Content-Length: 1000'))
  expect(await receivedBy(socket)).toMatch(/^HTTP\/1\.1 503 Service Unavailable\r\n/)
})

test('a connection that does not begin TLS is cut after the time of a request', async () => {
  await using ingress = await serveIngress({ tls: certificate, requestTimeoutMs: 1_000 })
  const silent = new RawConnection(ingress.port)
  const startedMs = performance.now()
  await silent.closed
  expect([silent.received, performance.now() - startedMs < 1_500]).toEqual(['', true])
})

test('connections that have not agreed on TLS hold no stop up', async () => {
  await using ingress = await serveIngress({ tls: certificate })
  const late = new RawConnection(ingress.port)
  const half = new RawConnection(ingress.port).write(Buffer.from('160301', 'hex'))
  await Promise.all([late.opened, half.opened])
  const stopMs = performance.now()
  await ingress.http.stop(never)
  expect(performance.now() - stopMs).toBeLessThan(2_000)
  await Promise.all([late.closed, half.closed])
})

test('a thousand connections that break off in the handshake harm nobody', async () => {
  await using ingress = await serveIngress({ tls: certificate })
  for (let opened = 0; opened < 1_000; opened += 100) {
    const sockets = Array.from({ length: 100 }, () =>
      createConnection({ port: ingress.port, host: '127.0.0.1' }),
    )
    await Promise.all(
      sockets.map(
        (socket) =>
          new Promise((resolve) => {
            socket.on('error', resolve)
            socket.on('close', resolve)
            socket.write(Buffer.from('16030100050100000100', 'hex'), () => socket.resetAndDestroy())
          }),
      ),
    )
  }
  const socket = await connectTls(ingress.port)
  socket.write(post)
  const [first] = (await once(socket, 'data')) as [Buffer]
  expect(first.toString()).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
  socket.destroy()
})
