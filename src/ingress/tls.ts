import type { X509Certificate } from 'node:crypto'
import type { Server, TLSSocket, TlsOptions } from 'node:tls'
import { isDeepStrictEqual } from 'node:util'
import type { Clock } from '../foundation/clock.ts'
import { asFailure, invariant } from '../foundation/failure.ts'
import { Periodic } from '../foundation/periodic.ts'
import type { Service } from '../foundation/service.ts'
import type { Log, LogFields } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { fitTogether, readTlsFiles, type TlsFiles, type TlsMaterial } from './tls-files.ts'

/** What TLS needs. */
export interface TlsCertificateOptions {
  files: TlsFiles
  log: Log
  metrics: Metrics
  clock: Clock
}

/**
 * Files are read again so often: 0.3 ms of CPU time each. Watching them by the kernel misses what is replaced by renaming a folder
 * above them, as Kubernetes does with mounted secrets, and what another machine changes on a shared file system.
 */
const LOOK_INTERVAL_MS = 10_000
/** A handshake of a few round trips; a client that stops half way holds a connection for nobody. */
const HANDSHAKE_MS_MAX = 10_000
/** A certificate should have been renewed with so much of its time left: a share, for some live for an hour only. */
const EXPIRY_WARNING = { maxMs: 14 * 24 * 3_600_000, share: 1 / 6 }

/** Why a client and we could not agree on TLS. */
export interface HandshakeFault {
  /** Node's code or OpenSSL's, such as `ERR_SSL_UNSUPPORTED_PROTOCOL` or `CERT_HAS_EXPIRED`. */
  readonly code: string
  /** The same in words. */
  readonly message: string
}

/**
 * The certificate of the OTLP listeners. Changed files are taken up without a restart, and without disturbing connections:
 * those that are open keep what they began with, new ones get the new certificate.
 *
 * **Maintained invariant**: a set of files that does not fit together is never served; the last good one is.
 */
export class TlsCertificate implements Service {
  readonly name = 'tls certificate'
  readonly #options: TlsCertificateOptions
  readonly #servers = new Set<Server>()
  readonly #watch: Periodic
  #material: TlsMaterial | undefined
  #reloading = Promise.resolve()
  #fault: string | undefined
  /** What was said about the dates of certificates, so that it is said once. */
  #said = new Set<string>()

  constructor(options: TlsCertificateOptions) {
    this.#options = options
    this.#watch = new Periodic({
      clock: options.clock,
      pauseMs: () => LOOK_INTERVAL_MS,
      work: () => this.reload(),
    })
  }

  /**
   * Resolves when the files are read.
   *
   * @throws Failure `configuration` that names the setting, the file and what is wrong with it.
   */
  async start(): Promise<void> {
    const { files } = this.#options
    this.#take(fitTogether(files, await readTlsFiles(files)))
    this.#lookAtDates()
    this.#watch.start()
  }

  async stop(): Promise<void> {
    await this.#watch.stop()
  }

  /** What a server is created with; `serve` it then, so that it hears of later certificates. */
  get serverOptions(): TlsOptions {
    invariant(this.#material, 'the certificate was asked for before it was read')
    return { ...this.#material.options, handshakeTimeout: HANDSHAKE_MS_MAX }
  }

  /** From now on new connections of `server` get the newest certificate. */
  serve(server: Server): void {
    this.#servers.add(server)
    server.on('close', () => this.#servers.delete(server))
  }

  /**
   * Takes the files up if they have changed. When they do not fit together, the log says so once and the last good
   * ones go on: whoever replaces them does it one after the other, and the next look finds them all.
   */
  reload(): Promise<void> {
    // One after the other, or files that were read earlier could be taken up later.
    this.#reloading = this.#reloading.then(async () => {
      await this.#reload()
      this.#lookAtDates()
    })
    return this.#reloading
  }

  async #reload(): Promise<void> {
    const { files, log } = this.#options
    try {
      const texts = await readTlsFiles(files)
      const isChanged = !isDeepStrictEqual(texts, this.#material?.texts)
      if (isChanged) this.#take(fitTogether(files, texts))
      this.#fault = undefined
      if (isChanged) for (const server of this.#servers) server.setSecureContext(this.serverOptions)
    } catch (thrown) {
      const failure = asFailure(thrown)
      if (failure.kind === 'bug') throw failure
      if (failure.message === this.#fault) return
      this.#fault = failure.message
      log.error('tls_reload_failed', { error: failure })
    }
  }

  #take(material: TlsMaterial): void {
    const { log, metrics } = this.#options
    this.#material = material
    metrics.certificateExpiry.set(material.certificate.validToDate.getTime() / 1000)
    log.info('tls_certificate', described(material.certificate))
  }

  /** Says once of each certificate that it is about to end, has ended, or is not valid yet. */
  #lookAtDates(): void {
    const { log, clock } = this.#options
    const said = new Set<string>()
    for (const { setting, certificate } of this.#material?.dated ?? []) {
      const reason = dateFault(certificate, clock.wallMs())
      if (reason === undefined) continue
      const key = `${certificate.fingerprint256} ${reason}`
      said.add(key)
      if (this.#said.has(key)) continue
      log.warn('tls_certificate_expires', { reason, setting, ...described(certificate) })
    }
    this.#said = said
  }
}

function described({ subject, fingerprint256, validFromDate, validToDate }: X509Certificate): LogFields {
  return {
    subject: subject?.replaceAll('\n', ', '),
    fingerprint: fingerprint256,
    not_before: validFromDate.toISOString(),
    not_after: validToDate.toISOString(),
  }
}

function dateFault({ validFromDate, validToDate }: X509Certificate, nowMs: number): string | undefined {
  if (nowMs > validToDate.getTime()) return 'ended'
  if (nowMs < validFromDate.getTime()) return 'not_yet_valid'
  const { maxMs, share } = EXPIRY_WARNING
  const warningMs = Math.min(maxMs, share * (validToDate.getTime() - validFromDate.getTime()))
  return validToDate.getTime() - nowMs < warningMs ? 'ends_soon' : undefined
}

/** What a server's `tlsClientError` means. */
export function handshakeFault(
  error: NodeJS.ErrnoException & { reason?: string },
  socket: TLSSocket,
): HandshakeFault {
  const { authorizationError } = socket
  // Node tells the server of a certificate that it refused as of a connection that was reset.
  if (authorizationError) {
    const code = String(authorizationError)
    return { code, message: `TLS_CLIENT_CA_FILE does not vouch for the certificate of the client: ${code}` }
  }
  const { code = error.name, reason } = error
  switch (code) {
    case 'ECONNRESET':
      return { code, message: 'the client went away during the handshake; it may not trust our certificate' }
    case 'ERR_TLS_HANDSHAKE_TIMEOUT':
      return { code, message: `the handshake took over ${HANDSHAKE_MS_MAX} ms` }
    case 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE':
      return { code, message: 'the client showed no certificate, which TLS_CLIENT_CA_FILE demands' }
    case 'ERR_SSL_UNSUPPORTED_PROTOCOL':
      return { code, message: 'the client speaks neither TLS 1.2 nor TLS 1.3' }
    default:
      // OpenSSL's own message has an address and its source file in it.
      return { code, message: reason ?? error.message }
  }
}
