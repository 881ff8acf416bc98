import { createPrivateKey } from 'node:crypto'
import { appendFile, readFile, truncate, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { asFailure } from '../../src/foundation/failure.ts'
import { fitTogether, readTlsFiles, type TlsFiles } from '../../src/ingress/tls-files.ts'
import { type Issued, TestAuthority } from './certificates.ts'
import { filesOf } from './tls-serve.ts'

let ours: TestAuthority
let others: TestAuthority
let intermediate: TestAuthority
let server: Issued
let other: Issued
let folder: string
let files: TlsFiles & { TLS_CLIENT_CA_FILE: string }

beforeAll(async () => {
  ours = await TestAuthority.open('ours')
  others = await TestAuthority.open('others')
  intermediate = await ours.intermediate('intermediate')
  server = await ours.issue('server')
  other = await ours.issue('other')
})
beforeEach(async () => {
  files = (await filesOf(server, ours)) as typeof files
  folder = dirname(files.TLS_CERT_FILE)
})

const text = (file: string) => readFile(file, 'utf8')

/** What is wrong with the files, without their folder; undefined when they fit together. */
async function fault(): Promise<string | undefined> {
  try {
    fitTogether(files, await readTlsFiles(files))
    return undefined
  } catch (thrown) {
    const { kind, message } = asFailure(thrown)
    return `${kind}: ${message.replaceAll(`${folder}/`, '')}`
  }
}

describe('files that fit together', () => {
  test('are taken as they are written: a chain, several authorities, lines that end in CR LF, remarks', async () => {
    expect(await fault()).toBeUndefined()
    await appendFile(files.TLS_CERT_FILE, await text(intermediate.certFile))
    await appendFile(files.TLS_CLIENT_CA_FILE, `\n# others\n${await text(others.certFile)}`)
    await writeFile(files.TLS_KEY_FILE, (await text(files.TLS_KEY_FILE)).replaceAll('\n', '\r\n'))
    const { dated, certificate } = fitTogether(files, await readTlsFiles(files))
    expect([
      certificate.subject,
      dated.map(({ setting, certificate: { subject } }) => [setting, subject]),
    ]).toEqual([
      'CN=server',
      [
        ['TLS_CERT_FILE', 'CN=server'],
        ['TLS_CLIENT_CA_FILE', 'CN=ours'],
        ['TLS_CLIENT_CA_FILE', 'CN=others'],
      ],
    ])
  })

  test('may be one file for certificate and key', async () => {
    const both = (await text(files.TLS_KEY_FILE)) + (await text(files.TLS_CERT_FILE))
    await writeFile(files.TLS_CERT_FILE, both)
    files = { ...files, TLS_KEY_FILE: files.TLS_CERT_FILE }
    expect(await fault()).toBeUndefined()
  })
})

describe('files that do not', () => {
  test('are named with the setting and the reason when they cannot be read', async () => {
    const missing = { ...files }
    for (const setting of ['TLS_CERT_FILE', 'TLS_KEY_FILE', 'TLS_CLIENT_CA_FILE'] as const) {
      files = { ...missing, [setting]: '/nowhere/tls.pem' }
      expect(await fault()).toBe(
        `configuration: ${setting}=/nowhere/tls.pem: cannot be read: ENOENT: no such file or directory, open '/nowhere/tls.pem'`,
      )
    }
    files = { ...missing, TLS_CERT_FILE: folder }
    expect(await fault()).toContain('cannot be read: EISDIR')
  })

  test('are named with what they hold instead', async () => {
    const [certificate, key] = [await text(files.TLS_CERT_FILE), await text(files.TLS_KEY_FILE)]
    await writeFile(files.TLS_CERT_FILE, key)
    expect(await fault()).toBe(
      'configuration: TLS_CERT_FILE=tls.crt: must hold a certificate in PEM; it holds PRIVATE KEY',
    )
    await writeFile(files.TLS_CERT_FILE, certificate)
    await writeFile(files.TLS_KEY_FILE, certificate)
    expect(await fault()).toBe(
      'configuration: TLS_KEY_FILE=tls.key: must hold a private key in PEM that is not encrypted; it holds CERTIFICATE',
    )
    await writeFile(files.TLS_KEY_FILE, key)
    await writeFile(files.TLS_CLIENT_CA_FILE, key + key)
    expect(await fault()).toBe(
      'configuration: TLS_CLIENT_CA_FILE=ca.crt: must hold a certificate in PEM; it holds PRIVATE KEY',
    )
  })

  test.each(['pkcs8', 'sec1'] as const)(
    'are a key that is encrypted (%s), and no passphrase is asked for',
    async (type) => {
      const key = createPrivateKey(await text(files.TLS_KEY_FILE))
      const options = { format: 'pem', type, cipher: 'aes-256-cbc', passphrase: 'secret' } as const
      await writeFile(files.TLS_KEY_FILE, key.export(options))
      const label = { pkcs8: 'ENCRYPTED PRIVATE KEY', sec1: 'EC PRIVATE KEY' }[type]
      expect(await fault()).toBe(
        `configuration: TLS_KEY_FILE=tls.key: must hold a private key in PEM that is not encrypted; it holds ${label}`,
      )
    },
  )

  test('are the key of another certificate', async () => {
    await writeFile(files.TLS_KEY_FILE, await text(other.keyFile))
    expect(await fault()).toBe(
      'configuration: TLS_KEY_FILE=tls.key: must be the key of the first certificate in TLS_CERT_FILE=tls.crt',
    )
  })

  test('are any file that was cut off anywhere, as it is while somebody writes it', async () => {
    await appendFile(files.TLS_CERT_FILE, await text(intermediate.certFile))
    await appendFile(files.TLS_CLIENT_CA_FILE, await text(others.certFile))
    for (const file of [files.TLS_CERT_FILE, files.TLS_KEY_FILE, files.TLS_CLIENT_CA_FILE]) {
      const whole = await text(file)
      // Up to where the second certificate begins the file is a good one, and the next look finds the rest.
      const end = '-----END CERTIFICATE-----\n'
      const secondAt = whole.includes(end) ? whole.indexOf(end) + end.length : Number.POSITIVE_INFINITY
      const isGood = (bytes: number) =>
        bytes >= secondAt - 1 && bytes < secondAt + '-----BEGIN CERTIFICATE-----'.length
      const taken: number[] = []
      for (let bytes = whole.length - 2; bytes >= 0; bytes -= 7) {
        await writeFile(file, whole)
        await truncate(file, bytes)
        if ((await fault()) === undefined && !isGood(bytes)) taken.push(bytes)
      }
      expect(taken).toEqual([])
      await writeFile(file, whole)
    }
  })

  test('are an intermediate authority without its root, by which no client could be checked', async () => {
    await writeFile(files.TLS_CLIENT_CA_FILE, await text(intermediate.certFile))
    expect(await fault()).toBe(
      'configuration: TLS_CLIENT_CA_FILE=ca.crt: must hold the root of the authority, a certificate that signed itself',
    )
  })

  test('are told of without a byte of the key', async () => {
    const key = await text(files.TLS_KEY_FILE)
    const secret = key.split('\n')[1] ?? ''
    await writeFile(files.TLS_KEY_FILE, key.replace('BEGIN PRIVATE', 'BEGIN'))
    const error = await readTlsFiles(files)
      .then((texts) => fitTogether(files, texts))
      .catch((thrown: Error) => thrown)
    const { message, stack, cause } = error as Error
    expect(secret.length).toBe(64)
    expect(JSON.stringify([message, stack, String(cause), (cause as Error).stack])).not.toContain(secret)
  })
})
