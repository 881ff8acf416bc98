import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** The files of a certificate and its key, in PEM. */
export interface Issued {
  readonly certFile: string
  readonly keyFile: string
}

/** How long a certificate is valid, in days from now; both may be negative. */
export interface Validity {
  readonly fromDays?: number
  readonly untilDays?: number
}

/** A certificate authority that lives for a test, made without any program, so that tests of TLS run everywhere. */
export class TestAuthority implements Issued {
  readonly certFile: string
  readonly keyFile: string
  readonly #folder: string
  readonly #name: string
  readonly #key: KeyObject

  private constructor(folder: string, name: string, key: KeyObject) {
    this.#folder = folder
    this.#name = name
    this.#key = key
    this.certFile = join(folder, `${name}.crt`)
    this.keyFile = join(folder, `${name}.key`)
  }

  /** A root, in a folder of its own. */
  static async open(name: string, validity: Validity = {}): Promise<TestAuthority> {
    const { publicKey, privateKey } = newKeys()
    const authority = new TestAuthority(await mkdtemp(join(tmpdir(), 'sluice-tls-')), name, privateKey)
    await authority.#write(authority, name, { publicKey, privateKey }, isAuthority, validity)
    return authority
  }

  /** An authority that this one signed. */
  async intermediate(name: string): Promise<TestAuthority> {
    const keys = newKeys()
    const authority = new TestAuthority(this.#folder, name, keys.privateKey)
    await this.#write(authority, name, keys, isAuthority, {})
    return authority
  }

  /** A certificate of `localhost` under this common name. */
  async issue(commonName: string, validity: Validity = {}): Promise<Issued> {
    const files = {
      certFile: join(this.#folder, `${commonName}.crt`),
      keyFile: join(this.#folder, `${commonName}.key`),
    }
    await this.#write(files, commonName, newKeys(), isLocalhost, validity)
    return files
  }

  async #write(
    files: Issued,
    name: string,
    keys: Keys,
    extension: Buffer,
    validity: Validity,
  ): Promise<void> {
    const signed = sequence(
      tagged(0xa0, integer(Buffer.of(2))), // version 3
      integer(Buffer.concat([Buffer.of(1), randomBytes(8)])),
      ecdsaWithSha256,
      nameOf(this.#name),
      sequence(time(validity.fromDays ?? -1), time(validity.untilDays ?? 30)),
      nameOf(name),
      keys.publicKey.export({ type: 'spki', format: 'der' }),
      tagged(0xa3, sequence(extension)),
    )
    const signature = Buffer.concat([Buffer.of(0), sign('sha256', signed, this.#key)])
    const certificate = sequence(signed, ecdsaWithSha256, tagged(0x03, signature))
    const lines = certificate.toString('base64').replaceAll(/.{64}/g, '$&\n')
    await writeFile(files.certFile, `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`)
    await writeFile(files.keyFile, keys.privateKey.export({ type: 'pkcs8', format: 'pem' }))
  }
}

interface Keys {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

function newKeys(): Keys {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' })
}

/** One element of DER (X.690): tag, length, content. */
function tagged(tag: number, ...content: Buffer[]): Buffer {
  const bytes = Buffer.concat(content)
  const { length } = bytes
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...size]), bytes])
}

const sequence = (...content: Buffer[]) => tagged(0x30, ...content)
const integer = (bytes: Buffer) => tagged(0x02, bytes)
const identifier = (hex: string) => tagged(0x06, Buffer.from(hex, 'hex'))
const octets = (bytes: Buffer) => tagged(0x04, bytes)

/** UTCTime, which ends in 2049. */
function time(daysFromNow: number): Buffer {
  const text = new Date(Date.now() + daysFromNow * 86_400_000).toISOString().replaceAll(/[-:T]|\.\d+/g, '')
  return tagged(0x17, Buffer.from(text.slice(2)))
}

// The identifiers of RFC 5758 and RFC 5280.
const ecdsaWithSha256 = sequence(identifier('2a8648ce3d040302'))
const nameOf = (commonName: string) =>
  sequence(tagged(0x31, sequence(identifier('550403'), tagged(0x0c, Buffer.from(commonName)))))
const isAuthority = sequence(
  identifier('551d13'),
  Buffer.of(0x01, 0x01, 0xff), // critical
  octets(sequence(Buffer.of(0x01, 0x01, 0xff))),
)
const isLocalhost = sequence(
  identifier('551d11'),
  octets(sequence(tagged(0x82, Buffer.from('localhost')), tagged(0x87, Buffer.of(127, 0, 0, 1)))),
)
