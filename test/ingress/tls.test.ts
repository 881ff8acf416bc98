import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { copyFile, mkdtemp, writeFile } from 'node:fs/promises'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { TlsCertificate } from '../../src/ingress/tls.ts'
import type { TlsFiles } from '../../src/ingress/tls-files.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { manualClock } from '../support/clock.ts'
import { type Issued, TestAuthority } from './certificates.ts'
import { collectingLog } from './serve.ts'

let ours: TestAuthority
let others: TestAuthority
let first: Issued
let second: Issued
let client: Issued
let stranger: Issued

beforeAll(async () => {
  ours = await TestAuthority.open('ours')
  others = await TestAuthority.open('others')
  first = await ours.issue('first')
  second = await ours.issue('second', { untilDays: 3 })
  client = await ours.issue('client')
  stranger = await others.issue('stranger')
})

/** The files of one listener, in a folder where a test may replace them. */
async function filesOf(issued: Issued, clientCa?: string): Promise<TlsFiles> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-tls-files-'))
  const files = {
    TLS_CERT_FILE: join(folder, 'tls.crt'),
    TLS_KEY_FILE: join(folder, 'tls.key'),
    TLS_CLIENT_CA_FILE: clientCa === undefined ? undefined : join(folder, 'ca.crt'),
  }
  await copyFile(issued.certFile, files.TLS_CERT_FILE)
  await copyFile(issued.keyFile, files.TLS_KEY_FILE)
  if (clientCa !== undefined && files.TLS_CLIENT_CA_FILE !== undefined) {
    await copyFile(clientCa, files.TLS_CLIENT_CA_FILE)
  }
  return files
}

function certificateOf(files: TlsFiles) {
  const { log, lines } = collectingLog()
  const metrics = createMetrics()
  return { certificate: new TlsCertificate({ files, log, metrics, clock: systemClock }), lines, metrics }
}

/** An HTTPS server made of the files, which answers every request with the same word. */
async function serve(files: TlsFiles) {
  const { certificate, lines, metrics } = certificateOf(files)
  await certificate.start()
  const server = https.createServer(certificate.serverOptions, (_, answer) => answer.end('here'))
  certificate.serve(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    certificate,
    lines,
    metrics,
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await certificate.stop()
    },
  }
}

/** Shakes hands and asks for something; answers the common name that the server showed, or that it refused us. */
async function handshake(port: number, options: tls.ConnectionOptions = {}): Promise<string> {
  const ca = readFileSync(ours.certFile)
  const socket = tls.connect({ port, host: '127.0.0.1', servername: 'localhost', ca, ...options })
  const { promise, resolve } = Promise.withResolvers<string>()
  // A client of TLS 1.3 learns of the refusal of its certificate only when it reads.
  socket.on('secureConnect', () => socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'))
  socket.on('data', () => resolve(String(socket.getPeerCertificate().subject.CN)))
  socket.on('error', () => resolve('refused'))
  socket.on('close', () => resolve('refused'))
  const said = await promise
  socket.destroy()
  return said
}

const pair = ({ certFile, keyFile }: Issued) => ({ cert: readFileSync(certFile), key: readFileSync(keyFile) })

describe('files that cannot be served', () => {
  async function faultOf(
    change: (files: TlsFiles) => Promise<Partial<TlsFiles> | undefined>,
  ): Promise<string> {
    const files = await filesOf(first, ours.certFile)
    const changed = { ...files, ...(await change(files)) }
    const fault = certificateOf(changed).certificate.start()
    const error = await fault.then(
      () => new Error('it started'),
      (thrown: Error) => thrown,
    )
    const folder = join(files.TLS_CERT_FILE, '..')
    return error.message.replaceAll(`${folder}/`, '')
  }

  test('are named at the start, with the setting and what is wrong', async () => {
    expect(await faultOf(async () => ({ TLS_CERT_FILE: '/nowhere/tls.crt' }))).toBe(
      "TLS_CERT_FILE=/nowhere/tls.crt: cannot be read: ENOENT: no such file or directory, open '/nowhere/tls.crt'",
    )
    expect(await faultOf(async ({ TLS_CERT_FILE }) => void (await writeFile(TLS_CERT_FILE, 'x')))).toBe(
      'TLS_CERT_FILE=tls.crt: must hold a certificate in PEM',
    )
    expect(await faultOf(async ({ TLS_KEY_FILE }) => void (await writeFile(TLS_KEY_FILE, '')))).toBe(
      'TLS_KEY_FILE=tls.key: must hold a private key in PEM that is not encrypted',
    )
    expect(
      await faultOf(async ({ TLS_KEY_FILE }) => void (await copyFile(second.keyFile, TLS_KEY_FILE))),
    ).toBe('TLS_KEY_FILE=tls.key: must be the key of the first certificate in TLS_CERT_FILE=tls.crt')
    expect(
      await faultOf(async ({ TLS_CLIENT_CA_FILE = '' }) => void (await writeFile(TLS_CLIENT_CA_FILE, ''))),
    ).toBe('TLS_CLIENT_CA_FILE=ca.crt: must hold a certificate in PEM')
  })
})

/** Of a client that speaks nothing newer than TLS 1.1. */
const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const

describe('handshakes', () => {
  test('TLS 1.2 and 1.3 are taken, 1.1 is not', async () => {
    await using server = await serve(await filesOf(first))
    expect([
      await handshake(server.port, { maxVersion: 'TLSv1.2' }),
      await handshake(server.port, { minVersion: 'TLSv1.3' }),
      await handshake(server.port, old),
    ]).toEqual(['first', 'first', 'refused'])
  })

  test('the client of TLS 1.1 that is refused would be taken by a server that allows it', async () => {
    const server = https.createServer({ ...pair(first), ...old }, (_, answer) => answer.end('here'))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    expect(await handshake((server.address() as AddressInfo).port, old)).toBe('first')
    server.closeAllConnections()
    server.close()
  })

  test('with a client CA only clients that it signed are taken', async () => {
    await using server = await serve(await filesOf(first, ours.certFile))
    expect([
      await handshake(server.port, pair(client)),
      await handshake(server.port, pair(stranger)),
      await handshake(server.port),
      await handshake(server.port, { maxVersion: 'TLSv1.2' }),
    ]).toEqual(['first', 'refused', 'refused', 'refused'])
  })
})

describe('a reload', () => {
  test('gives new connections the new certificate while open ones go on, and keeps all rules', async () => {
    const files = await filesOf(first, ours.certFile)
    await using server = await serve(files)
    const agent = new https.Agent({
      keepAlive: true,
      maxSockets: 1,
      ca: readFileSync(ours.certFile),
      ...pair(client),
    })
    const get = async () => {
      const request = https.get({ host: '127.0.0.1', servername: 'localhost', port: server.port, agent })
      const [answer] = await once(request, 'response')
      const { localPort } = answer.socket
      answer.resume()
      await once(answer, 'end')
      return [answer.statusCode, localPort]
    }
    const [status, localPort] = await get()
    await copyFile(second.certFile, files.TLS_CERT_FILE)
    await copyFile(second.keyFile, files.TLS_KEY_FILE)
    await server.certificate.reload()
    expect([status, ...(await get())]).toEqual([200, 200, localPort])
    expect([
      await handshake(server.port, pair(client)),
      await handshake(server.port),
      await handshake(server.port, {
        ...pair(client),
        ...old,
      }),
    ]).toEqual(['second', 'refused', 'refused'])
    agent.destroy()
  })

  test('of another client CA takes no client of the old one, not even by a session that it kept', async () => {
    const files = await filesOf(first, ours.certFile)
    await using server = await serve(files)
    const socket = tls.connect({
      ...{ port: server.port, host: '127.0.0.1', servername: 'localhost', ca: readFileSync(ours.certFile) },
      ...pair(client),
    })
    const kept = once(socket, 'session')
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    const [session] = (await kept) as [Buffer]
    socket.destroy()
    await copyFile(others.certFile, files.TLS_CLIENT_CA_FILE ?? '')
    await server.certificate.reload()
    expect([
      await handshake(server.port, { ...pair(client), session }),
      await handshake(server.port, pair(stranger)),
    ]).toEqual(['refused', 'first'])
  })

  test('of files that do not fit together is said once, and the last good ones go on', async () => {
    const files = await filesOf(first)
    await using server = await serve(files)
    await copyFile(second.certFile, files.TLS_CERT_FILE)
    await server.certificate.reload()
    await server.certificate.reload()
    expect(await handshake(server.port)).toBe('first')
    await copyFile(second.keyFile, files.TLS_KEY_FILE)
    await server.certificate.reload()
    expect(await handshake(server.port)).toBe('second')
    expect(server.lines().map(({ event, level, subject }) => [event, level, subject])).toEqual([
      ['tls_certificate', 'info', 'CN=first'],
      ['tls_reload_failed', 'error', undefined],
      ['tls_certificate', 'info', 'CN=second'],
    ])
    const days = (await expiryOf(server.metrics)) / 86_400 - Date.now() / 86_400_000
    expect(Math.round(days)).toBe(3)
  })
})

test('changed files are taken up by themselves', async () => {
  const clock = manualClock()
  const { log, lines } = collectingLog()
  const files = await filesOf(first)
  const certificate = new TlsCertificate({ files, log, metrics: createMetrics(), clock })
  await certificate.start()
  await copyFile(second.certFile, files.TLS_CERT_FILE)
  await copyFile(second.keyFile, files.TLS_KEY_FILE)
  await clock.advance(10_000)
  await expect.poll(() => lines().map(({ subject }) => subject)).toContain('CN=second')
  await certificate.stop()
})

async function expiryOf(metrics: ReturnType<typeof createMetrics>): Promise<number> {
  const name = 'sluice_tls_certificate_expiry_timestamp_seconds'
  const line = (await metrics.registry.metrics()).split('\n').find((one) => one.startsWith(`${name} `))
  return Number(line?.slice(name.length))
}
