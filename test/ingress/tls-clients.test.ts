import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type http from 'node:http'
import https from 'node:https'
import { connect } from 'node:net'
import { Duplex } from 'node:stream'
import tls from 'node:tls'
import grpc from '@grpc/grpc-js'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { TlsFiles } from '../../src/ingress/tls-files.ts'
import { type Issued, TestAuthority } from './certificates.ts'
import { exportPathOf, serveGrpc } from './grpc-serve.ts'
import { oneSpan, PROTOBUF, RawConnection, serveIngress } from './serve.ts'
import { certificateOf, filesOf, handshake, install, oldTls, pair } from './tls-serve.ts'

let ours: TestAuthority
let others: TestAuthority
let first: Issued
let second: Issued
let client: Issued
let stranger: Issued
let late: Issued
let ca: Buffer
let files: TlsFiles

beforeAll(async () => {
  ours = await TestAuthority.open('ours')
  others = await TestAuthority.open('others')
  first = await ours.issue('first')
  second = await ours.issue('second')
  client = await ours.issue('client')
  late = await ours.issue('late', { fromDays: -2, untilDays: -1 })
  stranger = await others.issue('stranger')
  ca = await readFile(ours.certFile)
})
beforeEach(async () => {
  files = await filesOf(first, ours)
})

/** Both listeners with the certificate of the files; clients must show one of our authority. */
async function serveBoth() {
  const { certificate } = certificateOf(files)
  await certificate.start()
  const overHttp = await serveIngress({ tls: certificate })
  const overGrpc = await serveGrpc({ tls: certificate })
  return {
    certificate,
    overHttp,
    overGrpc,
    async [Symbol.asyncDispose]() {
      await overHttp[Symbol.asyncDispose]()
      await overGrpc[Symbol.asyncDispose]()
      await certificate.stop()
    },
  }
}

/** Exports one span over HTTPS and answers the status. */
async function postHttps(port: number, options: https.RequestOptions): Promise<number | undefined> {
  const headers = { 'content-type': PROTOBUF, 'content-length': oneSpan.length }
  const request = https.request({
    host: 'localhost',
    port,
    method: 'POST',
    path: '/v1/traces',
    headers,
    ...options,
  })
  request.end(oneSpan)
  const [answer] = (await once(request, 'response')) as [http.IncomingMessage]
  answer.resume()
  await once(answer, 'end')
  return answer.statusCode
}

/** A client of grpc-js over TLS. */
function grpcClient(port: number, own?: Issued): grpc.Client {
  const { cert = null, key = null } = own ? pair(own) : {}
  return new grpc.Client(`localhost:${port}`, grpc.credentials.createSsl(ca, key, cert))
}

/** Exports one span and answers the code. */
function callGrpc(channel: grpc.Client): Promise<grpc.status> {
  const asIs = (bytes: Buffer) => bytes
  const deadline = Date.now() + 10_000
  return new Promise((resolve) => {
    channel.makeUnaryRequest(
      exportPathOf('traces'),
      asIs,
      asIs,
      oneSpan,
      new grpc.Metadata(),
      { deadline },
      (error) => resolve(error?.code ?? grpc.status.OK),
    )
  })
}

describe('mTLS', () => {
  test('lets clients with a certificate of our authority export over HTTPS and over gRPC', async () => {
    await using both = await serveBoth()
    const channel = grpcClient(both.overGrpc.port, client)
    expect([
      await postHttps(both.overHttp.port, { ca, ...pair(client) }),
      await postHttps(both.overHttp.port, { ca, ...pair(client), maxVersion: 'TLSv1.2' }),
      await callGrpc(channel),
    ]).toEqual([200, 200, grpc.status.OK])
    channel.close()
    expect([both.overHttp.stager.rows.length, both.overGrpc.stager.rows.length]).toEqual([2, 1])
  })

  test.each([
    {
      who: 'no certificate',
      options: () => ({}),
      reason: 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE',
      message: 'the client showed no certificate, which TLS_CLIENT_CA_FILE demands',
    },
    {
      who: 'no certificate in TLS 1.2',
      options: () => ({ maxVersion: 'TLSv1.2' }),
      reason: 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE',
      message: 'the client showed no certificate, which TLS_CLIENT_CA_FILE demands',
    },
    {
      who: 'a certificate of another authority',
      options: () => pair(stranger),
      reason: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
      message:
        'TLS_CLIENT_CA_FILE does not vouch for the certificate of the client: UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    },
    {
      who: 'a certificate of another authority in TLS 1.2',
      options: () => ({ ...pair(stranger), maxVersion: 'TLSv1.2' }),
      reason: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
      message:
        'TLS_CLIENT_CA_FILE does not vouch for the certificate of the client: UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    },
    {
      who: 'a certificate that ended',
      options: () => pair(late),
      reason: 'CERT_HAS_EXPIRED',
      message: 'TLS_CLIENT_CA_FILE does not vouch for the certificate of the client: CERT_HAS_EXPIRED',
    },
    {
      who: 'nothing newer than TLS 1.1',
      options: () => ({ ...pair(client), ...oldTls }),
      reason: 'ERR_SSL_UNSUPPORTED_PROTOCOL',
      message: 'the client speaks neither TLS 1.2 nor TLS 1.3',
    },
    {
      who: 'another trust than ours',
      options: () => ({ ...pair(client), ca: [] }),
      reason: 'ECONNRESET',
      message: 'the client went away during the handshake; it may not trust our certificate',
    },
  ])(
    'refuses a client with $who on both ports, with one line that says why',
    async ({ options, reason, message }) => {
      await using both = await serveBoth()
      for (const { listener, transport, ALPNProtocols } of [
        { listener: both.overHttp, transport: 'http', ALPNProtocols: ['http/1.1'] },
        { listener: both.overGrpc, transport: 'grpc', ALPNProtocols: ['h2'] },
      ]) {
        const refused = await handshake(listener.port, {
          ca,
          ALPNProtocols,
          ...options(),
        } as tls.ConnectionOptions)
        expect(refused.name).toBeUndefined()
        const lines = () => listener.lines().map(({ time, ...line }) => line)
        await expect
          .poll(lines)
          .toEqual([{ level: 'info', event: 'tls_handshake_failed', reason, transport, message }])
        expect(listener.stager.appended).toBe(0)
      }
    },
  )

  test('tells a client of grpc-js without a certificate UNAVAILABLE, so that it tries again', async () => {
    await using both = await serveBoth()
    const channel = grpcClient(both.overGrpc.port)
    expect(await callGrpc(channel)).toBe(grpc.status.UNAVAILABLE)
    channel.close()
  })
})

test('each port of TLS offers its own protocol alone', async () => {
  await using both = await serveBoth()
  const offered = async (port: number, protocols: string[]) => {
    const options = { port, host: '127.0.0.1', servername: 'localhost', ca, ...pair(client) }
    const socket = tls.connect({ ...options, ALPNProtocols: protocols })
    return new Promise((resolve) => {
      socket.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code))
      socket.once('secureConnect', () => {
        resolve(socket.alpnProtocol)
        socket.destroy()
      })
    })
  }
  const none = 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL'
  expect([
    await offered(both.overHttp.port, ['h2', 'http/1.1']),
    await offered(both.overHttp.port, ['h2']),
    await offered(both.overGrpc.port, ['h2', 'http/1.1']),
    await offered(both.overGrpc.port, ['http/1.1']),
  ]).toEqual(['http/1.1', none, 'h2', none])
})

test('plain HTTP and plain gRPC to a port of TLS are told in plain text that it takes TLS only', async () => {
  await using both = await serveBoth()
  for (const { port } of [both.overHttp, both.overGrpc]) {
    for (const bytes of ['POST /v1/traces HTTP/1.1\r\n\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']) {
      const connection = new RawConnection(port)
      await connection.write(bytes).closed
      expect(connection.received).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n[\s\S]*this port takes TLS only/)
      connection.socket.destroy()
    }
  }
})

test('a handshake that stops half way is cut off after 10 s on both ports', async () => {
  await using both = await serveBoth()
  const startedMs = performance.now()
  const ends = [both.overHttp, both.overGrpc].map(async ({ port, lines }) => {
    const hello = await clientHello()
    const socket = connect({ port, host: '127.0.0.1' })
    socket.on('error', () => undefined)
    socket.resume()
    socket.write(hello)
    await new Promise((resolve) => socket.once('close', resolve))
    const handshakes = () =>
      lines().filter(({ event, reason }) => event === 'tls_handshake_failed' && reason !== 'ECONNRESET')
    await expect
      .poll(() => handshakes().map(({ reason, message }) => [reason, message]))
      .toEqual([['ERR_TLS_HANDSHAKE_TIMEOUT', 'the handshake took over 10000 ms']])
    return performance.now() - startedMs
  })
  for (const ms of await Promise.all(ends)) expect(ms).toBeGreaterThan(9_900)
}, 20_000)

/** The first message of a client, after which a server waits for the second. */
async function clientHello(): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>()
  const recorder = new Duplex({
    read: () => undefined,
    write: (bytes: Buffer, _encoding, done) => {
      resolve(bytes)
      done()
    },
  })
  const secure = tls.connect({ socket: recorder, servername: 'localhost' })
  secure.on('error', () => undefined)
  const hello = await promise
  secure.destroy()
  return hello
}

test('two hundred refused handshakes are at most 20 lines a second, which say how many they stand for', async () => {
  await using both = await serveBoth()
  const { port, lines } = both.overHttp
  for (let round = 0; round < 8; round++) {
    await Promise.all(Array.from({ length: 25 }, () => handshake(port, { ca })))
  }
  const failed = () => lines().filter(({ event }) => event === 'tls_handshake_failed')
  const told = () => failed().reduce((sum, { count = 1 }) => sum + Number(count), 0)
  await expect.poll(told, { timeout: 5_000 }).toBe(200)
  const perSecond = Map.groupBy(failed(), ({ time }) => String(time).slice(0, 19))
  expect(Math.max(...[...perSecond.values()].map(({ length }) => length))).toBeLessThanOrEqual(21)
  expect(await postHttps(port, { ca, ...pair(client) })).toBe(200)
}, 30_000)

test('while certificates are replaced 20 times, no request of open connections fails, and none is opened again', async () => {
  await using both = await serveBoth()
  const agent = new https.Agent({ keepAlive: true, maxSockets: 4, ca, ...pair(client) })
  const channel = grpcClient(both.overGrpc.port, client)
  const results = new Map<string, number>()
  const count = (result: string) => results.set(result, (results.get(result) ?? 0) + 1)
  let opened = 0
  let replacing = true
  const senders = Array.from({ length: 4 }, async () => {
    while (replacing) {
      count(`http ${await postHttps(both.overHttp.port, { agent })}`)
      count(`grpc ${await callGrpc(channel)}`)
    }
  })
  agent.on('free', (socket: tls.TLSSocket & { isKnown?: boolean }) => {
    if (!socket.isKnown) opened++
    socket.isKnown = true
  })
  const shown = new Set<string | undefined>()
  for (let round = 0; round < 20; round++) {
    await install(files, round % 2 === 0 ? second : first)
    await both.certificate.reload()
    shown.add((await handshake(both.overHttp.port, { ca, ...pair(client) })).name)
    shown.add(await shownByGrpc(both.overGrpc.port))
  }
  replacing = false
  await Promise.all(senders)
  agent.destroy()
  channel.close()
  expect([...results.keys()].sort()).toEqual(['grpc 0', 'http 200'])
  expect(Math.min(...results.values())).toBeGreaterThan(20)
  expect([opened, shown]).toEqual([4, new Set(['first', 'second'])])
})

/** The common name that the port of gRPC shows to a new connection. */
async function shownByGrpc(port: number): Promise<string> {
  const options = { port, host: '127.0.0.1', servername: 'localhost', ca, ...pair(client) }
  const socket = tls.connect({ ...options, ALPNProtocols: ['h2'] })
  await once(socket, 'secureConnect')
  const { CN } = socket.getPeerCertificate().subject
  socket.destroy()
  return String(CN)
}
