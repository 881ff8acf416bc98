import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createSecureContext, type TlsOptions } from 'node:tls'
import { Failure } from '../foundation/failure.ts'

/** The files that TLS is made of, as the settings name them. */
export interface TlsFiles {
  readonly TLS_CERT_FILE: string
  readonly TLS_KEY_FILE: string
  readonly TLS_CLIENT_CA_FILE: string | undefined
}

/** What is in them. */
export interface TlsFileTexts {
  readonly cert: string
  readonly key: string
  readonly ca: string | undefined
}

/** Files that fit together, and what a server needs of them. */
export interface TlsMaterial {
  readonly texts: TlsFileTexts
  readonly options: TlsOptions
  readonly certificate: X509Certificate
  /** Every certificate that is of no use once its time is over. */
  readonly dated: readonly { readonly setting: keyof TlsFiles; readonly certificate: X509Certificate }[]
}

/**
 * Reads all of them, as nearly at one time as can be.
 *
 * @throws Failure `configuration` that names the setting, the file and the operating system's reason.
 */
export async function readTlsFiles({
  TLS_CERT_FILE,
  TLS_KEY_FILE,
  TLS_CLIENT_CA_FILE,
}: TlsFiles): Promise<TlsFileTexts> {
  const [cert, key, ca] = await Promise.all([
    read('TLS_CERT_FILE', TLS_CERT_FILE),
    read('TLS_KEY_FILE', TLS_KEY_FILE),
    TLS_CLIENT_CA_FILE === undefined ? undefined : read('TLS_CLIENT_CA_FILE', TLS_CLIENT_CA_FILE),
  ])
  return { cert, key, ca }
}

/**
 * Checks that a server can be made of them, for Node leaves much of it to the handshake.
 *
 * @throws Failure `configuration` that names the setting, the file and the rule.
 */
export function fitTogether(
  { TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE }: TlsFiles,
  texts: TlsFileTexts,
): TlsMaterial {
  const { cert, key, ca } = texts
  const [certificate] = certificatesOf('TLS_CERT_FILE', TLS_CERT_FILE, cert)
  if (!certificate.checkPrivateKey(privateKeyOf(TLS_KEY_FILE, key))) {
    const message = `TLS_KEY_FILE=${TLS_KEY_FILE}: must be the key of the first certificate in TLS_CERT_FILE=${TLS_CERT_FILE}`
    throw new Failure('configuration', message)
  }
  const dated: TlsMaterial['dated'][number][] = [{ setting: 'TLS_CERT_FILE', certificate }]
  if (TLS_CLIENT_CA_FILE !== undefined && ca !== undefined) {
    for (const authority of authoritiesOf(TLS_CLIENT_CA_FILE, ca)) {
      dated.push({ setting: 'TLS_CLIENT_CA_FILE', certificate: authority })
    }
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
  return { texts, certificate, dated, options }
}

async function read(setting: keyof TlsFiles, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    const message = `${setting}=${file}: cannot be read: ${(cause as Error).message}`
    throw new Failure('configuration', message, { cause })
  }
}

/** Every certificate of a file. Of authorities, OpenSSL would pass over what is cut off, and take what is left for all. */
function certificatesOf(
  setting: keyof TlsFiles,
  file: string,
  text: string,
): [X509Certificate, ...X509Certificate[]] {
  const blocks = text.match(/-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[^-]*(?:-----END [^-]*-----)?/g)
  const certificates = (blocks ?? []).map((block, at) => {
    try {
      return new X509Certificate(block)
    } catch (cause) {
      const message = `${setting}=${file}: certificate ${at + 1} in it cannot be read: ${(cause as Error).message}`
      throw new Failure('configuration', message, { cause })
    }
  })
  const [first, ...others] = certificates
  if (first !== undefined) return [first, ...others]
  throw new Failure('configuration', `${setting}=${file}: must hold a certificate in PEM${butHolds(text)}`)
}

/** OpenSSL trusts a chain only up to a root, so an intermediate alone would refuse every client. */
function authoritiesOf(file: string, text: string): X509Certificate[] {
  const authorities = certificatesOf('TLS_CLIENT_CA_FILE', file, text)
  if (authorities.some((authority) => authority.checkIssued(authority))) return authorities
  const message = `TLS_CLIENT_CA_FILE=${file}: must hold the root of the authority, a certificate that signed itself`
  throw new Failure('configuration', message)
}

function privateKeyOf(file: string, text: string): KeyObject {
  try {
    return createPrivateKey(text)
  } catch (cause) {
    const message = `TLS_KEY_FILE=${file}: must hold a private key in PEM that is not encrypted${butHolds(text)}`
    throw new Failure('configuration', message, { cause })
  }
}

/** What is in a file instead, by its PEM labels (RFC 7468, section 2). */
function butHolds(text: string): string {
  const labels = new Set(
    Array.from(text.matchAll(/-----BEGIN ([A-Z0-9 ]{1,40})-----/g), ([, label]) => label),
  )
  return labels.size === 0 ? '' : `; it holds ${[...labels].join(', ')}`
}
