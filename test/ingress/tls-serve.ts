import { readFileSync } from 'node:fs'
import { copyFile, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { type Clock, systemClock } from '../../src/foundation/clock.ts'
import { TlsCertificate } from '../../src/ingress/tls.ts'
import type { TlsFiles } from '../../src/ingress/tls-files.ts'
import { createMetrics, type Metrics } from '../../src/telemetry/metrics.ts'
import type { Issued, TestAuthority } from './certificates.ts'
import { collectingLog } from './serve.ts'

/** Copies of a certificate, its key and an authority of clients, in a folder where a test may replace them. */
export async function filesOf(issued: Issued, clientCa?: TestAuthority): Promise<TlsFiles> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-tls-files-'))
  const files = {
    TLS_CERT_FILE: join(folder, 'tls.crt'),
    TLS_KEY_FILE: join(folder, 'tls.key'),
    TLS_CLIENT_CA_FILE: clientCa && join(folder, 'ca.crt'),
  }
  await install(files, issued, clientCa)
  return files
}

/** Replaces the files, one after the other. */
export async function install(files: TlsFiles, issued: Issued, clientCa?: TestAuthority): Promise<void> {
  await copyFile(issued.certFile, files.TLS_CERT_FILE)
  await copyFile(issued.keyFile, files.TLS_KEY_FILE)
  if (clientCa && files.TLS_CLIENT_CA_FILE) await copyFile(clientCa.certFile, files.TLS_CLIENT_CA_FILE)
}

/** A certificate with a log and metrics of its own, not started yet. */
export interface ObservedCertificate {
  readonly certificate: TlsCertificate
  readonly metrics: Metrics
  /** The log so far. */
  lines(): Record<string, unknown>[]
}

export function certificateOf(files: TlsFiles, clock: Clock = systemClock): ObservedCertificate {
  const { log, lines } = collectingLog()
  const metrics = createMetrics()
  return { certificate: new TlsCertificate({ files, log, metrics, clock }), lines, metrics }
}

/** A certificate and its key as a client or server of Node takes them. */
export function pair({ certFile, keyFile }: Issued): { cert: Buffer; key: Buffer } {
  return { cert: readFileSync(certFile), key: readFileSync(keyFile) }
}

/** Of a client that speaks nothing newer than TLS 1.1. */
export const oldTls = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const

/** What became of a handshake. */
export interface Handshake {
  /** The common name that the server showed, `resumed` when it needed to show none, undefined when it took no request. */
  readonly name: string | undefined
  /** With it the client can come again without a whole handshake, if the server remembers it. */
  readonly session: Buffer | undefined
}

/** Shakes hands with a port of HTTPS and sends a request, without which a client of TLS 1.3 hears of no refusal. */
export async function handshake(port: number, options: tls.ConnectionOptions): Promise<Handshake> {
  const socket = tls.connect({ port, host: '127.0.0.1', servername: 'localhost', ...options })
  let session: Buffer | undefined
  let name: string | undefined
  socket.on('session', (told: Buffer) => {
    session = told
  })
  socket.on('error', () => undefined)
  socket.on('secureConnect', () => {
    const shown = socket.isSessionReused() ? 'resumed' : String(socket.getPeerCertificate().subject.CN)
    socket.once('data', () => {
      name = shown
    })
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  })
  await new Promise((resolve) => socket.once('close', resolve))
  return { name, session }
}
