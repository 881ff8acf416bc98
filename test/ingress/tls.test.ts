import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rename, symlink } from 'node:fs/promises'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, test, vi } from 'vitest'
import type { TlsFiles } from '../../src/ingress/tls-files.ts'
import { manualClock } from '../support/clock.ts'
import { type Issued, TestAuthority } from './certificates.ts'
import { certificateOf, filesOf, handshake, install, oldTls, pair } from './tls-serve.ts'

let ours: TestAuthority
let others: TestAuthority
let first: Issued
let second: Issued
let client: Issued
let stranger: Issued
let ca: Buffer

beforeAll(async () => {
  ours = await TestAuthority.open('ours')
  others = await TestAuthority.open('others')
  first = await ours.issue('first')
  second = await ours.issue('second', { untilDays: 5 })
  client = await ours.issue('client')
  stranger = await others.issue('stranger')
  ca = await readFile(ours.certFile)
})

/** An HTTPS server made of the files, which answers every request with the same word. */
async function serve(files: TlsFiles, options: https.ServerOptions = {}) {
  const observed = certificateOf(files)
  const { certificate } = observed
  await certificate.start()
  const server = https.createServer({ ...options, ...certificate.serverOptions }, (_, answer) =>
    answer.end('here'),
  )
  certificate.serve(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    ...observed,
    https: server,
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await certificate.stop()
    },
  }
}

/** The common name that the server shows to a client, or undefined when it refuses it. */
async function nameFor(port: number, options = {}): Promise<string | undefined> {
  return (await handshake(port, { ca, ...options })).name
}

describe('handshakes', () => {
  test('TLS 1.2 and 1.3 are taken, 1.1 is not', async () => {
    // Without this OpenSSL would refuse what is old whatever is set.
    await using server = await serve(await filesOf(first), { ciphers: oldTls.ciphers })
    expect([
      await nameFor(server.port, { maxVersion: 'TLSv1.2' }),
      await nameFor(server.port, { minVersion: 'TLSv1.3' }),
      await nameFor(server.port, oldTls),
    ]).toEqual(['first', 'first', undefined])
  })

  test('with a client CA only clients that it signed are taken', async () => {
    await using server = await serve(await filesOf(first, ours))
    expect([
      await nameFor(server.port, pair(client)),
      await nameFor(server.port, { ...pair(client), maxVersion: 'TLSv1.2' }),
      await nameFor(server.port, pair(stranger)),
      await nameFor(server.port, { ...pair(stranger), maxVersion: 'TLSv1.2' }),
      await nameFor(server.port),
      await nameFor(server.port, { maxVersion: 'TLSv1.2' }),
    ]).toEqual(['first', 'first', undefined, undefined, undefined, undefined])
  })

  test('a client that an intermediate authority signed is taken if it shows the chain', async () => {
    const intermediate = await ours.intermediate('intermediate')
    const below = await intermediate.issue('below')
    const { cert, key } = pair(below)
    await using server = await serve(await filesOf(first, ours))
    expect([
      await nameFor(server.port, { key, cert: Buffer.concat([cert, await readFile(intermediate.certFile)]) }),
      await nameFor(server.port, { key, cert }),
    ]).toEqual(['first', undefined])
  })
})

describe('a reload', () => {
  test('gives new connections the new certificate while open ones go on, and keeps all rules', async () => {
    const files = await filesOf(first, ours)
    await using server = await serve(files)
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca, ...pair(client) })
    const get = async () => {
      const request = https.get({ host: '127.0.0.1', servername: 'localhost', port: server.port, agent })
      const [answer] = await once(request, 'response')
      const { localPort } = answer.socket
      answer.resume()
      await once(answer, 'end')
      return [answer.statusCode, localPort]
    }
    const [status, localPort] = await get()
    const taken = vi.spyOn(server.https, 'setSecureContext')
    await install(files, second)
    await server.certificate.reload()
    expect([status, ...(await get())]).toEqual([200, 200, localPort])
    // That OpenSSL itself refuses what is old hides whether the rule is kept.
    expect(taken.mock.calls).toEqual([[expect.objectContaining({ minVersion: 'TLSv1.2' })]])
    expect([await nameFor(server.port, pair(client)), await nameFor(server.port)]).toEqual([
      'second',
      undefined,
    ])
    agent.destroy()
  })

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'lets no session of %s go on from before: not around another client CA',
    async (version) => {
      const files = await filesOf(first, ours)
      await using server = await serve(files)
      const options = { ca, ...pair(client), minVersion: version, maxVersion: version }
      const { session } = await handshake(server.port, options)
      // What is refused below would be taken without the reload.
      const again = await handshake(server.port, { ...options, session })
      expect(again.name).toBe('resumed')
      await install(files, second)
      await server.certificate.reload()
      const anew = await handshake(server.port, { ...options, session })
      expect(anew.name).toBe('second')
      await install(files, second, others)
      await server.certificate.reload()
      const refused = await handshake(server.port, { ...options, session: anew.session })
      expect(refused.name).toBeUndefined()
      expect(await nameFor(server.port, pair(stranger))).toBe('second')
    },
  )

  test('of files that do not fit together is said once, and the last good ones go on', async () => {
    const files = await filesOf(first)
    await using server = await serve(files)
    await install(files, { certFile: second.certFile, keyFile: first.keyFile })
    await server.certificate.reload()
    await server.certificate.reload()
    expect(await nameFor(server.port)).toBe('first')
    await install(files, second)
    await server.certificate.reload()
    await server.certificate.reload()
    expect(await nameFor(server.port)).toBe('second')
    expect(server.lines().map(({ event, level, subject }) => [event, level, subject])).toEqual([
      ['tls_certificate', 'info', 'CN=first'],
      ['tls_reload_failed', 'error', undefined],
      ['tls_certificate', 'info', 'CN=second'],
    ])
  })

  test('that fails in the same way after a good one is said again', async () => {
    const files = await filesOf(first)
    await using server = await serve(files)
    for (const issued of [{ certFile: second.certFile, keyFile: first.keyFile }, first]) {
      await install(files, issued)
      await server.certificate.reload()
    }
    await install(files, { certFile: second.certFile, keyFile: first.keyFile })
    await server.certificate.reload()
    expect(server.lines().map(({ event }) => event)).toEqual([
      'tls_certificate',
      'tls_reload_failed',
      'tls_reload_failed',
    ])
  })
})

describe('by themselves', () => {
  test('changed files are taken up within 10 s', async () => {
    const clock = manualClock()
    const files = await filesOf(first)
    const { certificate, lines } = certificateOf(files, clock)
    await certificate.start()
    await install(files, second)
    await clock.advance(10_000)
    await expect.poll(() => lines().map(({ subject }) => subject)).toContain('CN=second')
    await certificate.stop()
  })

  test('files are taken up that are replaced by turning a symlink, as Kubernetes does', async () => {
    const clock = manualClock()
    const folder = await mkdtemp(join(tmpdir(), 'sluice-tls-mount-'))
    const files = {
      TLS_CERT_FILE: join(folder, 'tls.crt'),
      TLS_KEY_FILE: join(folder, 'tls.key'),
      TLS_CLIENT_CA_FILE: undefined,
    }
    const turnTo = async (version: string, issued: Issued) => {
      await mkdir(join(folder, version))
      const inside = (name: string) => join(folder, version, name)
      await install({ ...files, TLS_CERT_FILE: inside('tls.crt'), TLS_KEY_FILE: inside('tls.key') }, issued)
      await symlink(version, join(folder, '..data_tmp'))
      await rename(join(folder, '..data_tmp'), join(folder, '..data'))
    }
    await turnTo('..1', first)
    for (const name of ['tls.crt', 'tls.key']) await symlink(join('..data', name), join(folder, name))
    const { certificate, lines } = certificateOf(files, clock)
    await certificate.start()
    await turnTo('..2', second)
    await clock.advance(10_000)
    await expect.poll(() => lines().map(({ subject }) => subject)).toContain('CN=second')
    await certificate.stop()
  })
})

describe('a certificate', () => {
  const day = 86_400_000

  /** What is said about the dates of a certificate, by a clock that starts so many days from now and moves on. */
  async function saidOf(
    issued: Issued,
    clientCa: TestAuthority | undefined,
    startDays: number,
    moveDays: number[],
  ) {
    const clock = manualClock(Date.now() + startDays * day)
    const { certificate, lines } = certificateOf(await filesOf(issued, clientCa), clock)
    await certificate.start()
    for (const days of moveDays) {
      await clock.advance(days * day)
      await certificate.reload()
    }
    await certificate.stop()
    return lines()
      .filter(({ event }) => event === 'tls_certificate_expires')
      .map(({ level, reason, setting, subject }) => [level, reason, setting, subject])
  }

  test('is told of once when it is not valid yet, once when a sixth of its time is left, and once when it ended', async () => {
    const issued = await ours.issue('dated', { fromDays: 0, untilDays: 60 })
    // A day before it begins, in the middle of it, 10 days and 9 before it ends, and after that.
    expect(await saidOf(issued, undefined, -1, [30, 20.9, 0.2, 1, 15, 1])).toEqual([
      ['warn', 'not_yet_valid', 'TLS_CERT_FILE', 'CN=dated'],
      ['warn', 'ends_soon', 'TLS_CERT_FILE', 'CN=dated'],
      ['warn', 'ended', 'TLS_CERT_FILE', 'CN=dated'],
    ])
  })

  test.each([
    { life: 365, before: 14 },
    { life: 60, before: 10 },
    { life: 1 / 24, before: 1 / 144 },
  ])('of $life days is told of $before days before its end', async ({ life, before }) => {
    const issued = await ours.issue('dated', { fromDays: 0, untilDays: life })
    const minute = 1 / 1440
    expect([
      await saidOf(issued, undefined, life - before - minute, []),
      await saidOf(issued, undefined, life - before + minute, []),
    ]).toEqual([[], [['warn', 'ends_soon', 'TLS_CERT_FILE', 'CN=dated']]])
  })

  test('of an authority of clients is told of too', async () => {
    const old = await TestAuthority.open('old', { fromDays: -2, untilDays: -1 })
    expect(await saidOf(first, old, 0, [])).toEqual([['warn', 'ended', 'TLS_CLIENT_CA_FILE', 'CN=old']])
  })

  test('is in the log and the metrics with its end', async () => {
    const files = await filesOf(second)
    const { certificate, lines, metrics } = certificateOf(files)
    await certificate.start()
    await certificate.stop()
    const { values } = await metrics.certificateExpiry.get()
    const endSeconds = values[0]?.value ?? 0
    expect(Math.round((endSeconds - Date.now() / 1000) / 86_400)).toBe(5)
    const [{ fingerprint, not_after } = {}] = lines()
    expect([fingerprint, not_after]).toEqual([
      expect.stringMatching(/^(?:[0-9A-F]{2}:){31}[0-9A-F]{2}$/),
      new Date(endSeconds * 1000).toISOString(),
    ])
  })
})
