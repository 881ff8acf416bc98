import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createSecureContext, type Server, type TlsOptions } from 'node:tls'
import type { Clock } from '../foundation/clock.ts'
import { asFailure, Failure } from '../foundation/failure.ts'
import { Periodic } from '../foundation/periodic.ts'
import type { Service } from '../foundation/service.ts'
import type { Log } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'

/** The files that a TLS listener is made of, as the settings name them. */
export interface TlsFiles {
  readonly TLS_CERT_FILE: string
  readonly TLS_KEY_FILE: string
  readonly TLS_CLIENT_CA_FILE: string | undefined
}

/** What TLS needs. */
export interface TlsCertificateOptions {
  files: TlsFiles
  log: Log
  metrics: Metrics
  clock: Clock
}

/**
 * Files are looked at so often. Watching them by the kernel misses what is replaced by renaming a folder above them, as
 * Kubernetes does with mounted secrets.
 */
const LOOK_INTERVAL_MS = 10_000
/** A handshake of a few round trips; a client that stops half way holds a connection for nobody. */
const HANDSHAKE_MS_MAX = 10_000
const EXPIRY_WARNING_MS = 14 * 24 * 3_600_000

/** One consistent set of files. */
interface Loaded {
  readonly text: string
  readonly certificate: X509Certificate
  readonly options: TlsOptions
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
  #loaded: Loaded | undefined
  #fault: string | undefined

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
    this.#take(await load(this.#options.files))
    this.#watch.start()
  }

  async stop(): Promise<void> {
    await this.#watch.stop()
  }

  /** What a server is created with; `serve` it then, so that it hears of later certificates. */
  get serverOptions(): TlsOptions {
    if (this.#loaded === undefined) throw new Error('the certificate was asked for before it was read')
    return { ...this.#loaded.options, handshakeTimeout: HANDSHAKE_MS_MAX }
  }

  /** From now on new connections of `server` get the newest certificate. */
  serve(server: Server): void {
    this.#servers.add(server)
    server.on('close', () => this.#servers.delete(server))
  }

  /**
   * Takes the files up if they have changed. When they do not fit together, the log says so once and the last good
   * ones go on: whoever replaces them does it one after the other.
   */
  async reload(): Promise<void> {
    try {
      const loaded = await load(this.#options.files)
      this.#fault = undefined
      if (loaded.text === this.#loaded?.text) return
      this.#take(loaded)
      for (const server of this.#servers) server.setSecureContext(loaded.options)
    } catch (thrown) {
      const failure = asFailure(thrown)
      if (failure.kind === 'bug') throw failure
      if (failure.message === this.#fault) return
      this.#fault = failure.message
      this.#options.log.error('tls_reload_failed', { error: failure })
    }
  }

  #take(loaded: Loaded): void {
    const { log, metrics, clock } = this.#options
    const { subject, fingerprint256, validToDate } = loaded.certificate
    this.#loaded = loaded
    metrics.certificateExpiry.set(validToDate.getTime() / 1000)
    const described = { subject, fingerprint: fingerprint256, not_after: validToDate.toISOString() }
    log.info('tls_certificate', described)
    if (validToDate.getTime() - clock.wallMs() < EXPIRY_WARNING_MS)
      log.warn('tls_certificate_expires', described)
  }
}

async function load(files: TlsFiles): Promise<Loaded> {
  const { TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE } = files
  const cert = await read('TLS_CERT_FILE', TLS_CERT_FILE)
  const key = await read('TLS_KEY_FILE', TLS_KEY_FILE)
  const ca =
    TLS_CLIENT_CA_FILE === undefined ? undefined : await read('TLS_CLIENT_CA_FILE', TLS_CLIENT_CA_FILE)
  const certificate = certificateOf('TLS_CERT_FILE', TLS_CERT_FILE, cert)
  const privateKey = privateKeyOf(TLS_KEY_FILE, key)
  if (!certificate.checkPrivateKey(privateKey)) {
    const message = `TLS_KEY_FILE=${TLS_KEY_FILE}: must be the key of the first certificate in TLS_CERT_FILE=${TLS_CERT_FILE}`
    throw new Failure('configuration', message)
  }
  if (TLS_CLIENT_CA_FILE !== undefined && ca !== undefined) {
    certificateOf('TLS_CLIENT_CA_FILE', TLS_CLIENT_CA_FILE, ca)
  }
  const options: TlsOptions = {
    cert,
    key,
    minVersion: 'TLSv1.2',
    ...(ca !== undefined && { ca, requestCert: true, rejectUnauthorized: true }),
  }
  try {
    createSecureContext(options)
  } catch (cause) {
    const message = `TLS_CERT_FILE=${TLS_CERT_FILE}: cannot be used for TLS: ${(cause as Error).message}`
    throw new Failure('configuration', message, { cause })
  }
  return { text: [cert, key, ca].join('\n'), certificate, options }
}

async function read(setting: string, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new Failure('configuration', `${setting}=${file}: cannot be read: ${(cause as Error).message}`, {
      cause,
    })
  }
}

function certificateOf(setting: string, file: string, text: string): X509Certificate {
  try {
    return new X509Certificate(text)
  } catch (cause) {
    throw new Failure('configuration', `${setting}=${file}: must hold a certificate in PEM`, { cause })
  }
}

function privateKeyOf(file: string, text: string): KeyObject {
  try {
    return createPrivateKey(text)
  } catch (cause) {
    const message = `TLS_KEY_FILE=${file}: must hold a private key in PEM that is not encrypted`
    throw new Failure('configuration', message, { cause })
  }
}
