import { execFile } from 'node:child_process'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** A certificate with its key, as files and as text. */
export interface Issued {
  readonly certFile: string
  readonly keyFile: string
}

/**
 * A certificate authority of a test, with `openssl`, which must be on the PATH.
 */
export class TestAuthority {
  readonly folder: string
  readonly name: string

  private constructor(folder: string, name: string) {
    this.folder = folder
    this.name = name
  }

  static async open(name: string): Promise<TestAuthority> {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-tls-'))
    const authority = new TestAuthority(folder, name)
    await openssl(folder, [
      ...[
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-days',
        '30',
      ],
      ...['-keyout', 'ca.key', '-out', 'ca.crt', '-subj', `/CN=${name}`],
    ])
    return authority
  }

  get certFile(): string {
    return join(this.folder, 'ca.crt')
  }

  /** A certificate for localhost that ends after so many days. */
  async issue(commonName: string, days = 30): Promise<Issued> {
    await openssl(this.folder, [
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-keyout', `${commonName}.key`, '-out', `${commonName}.csr`, '-subj', `/CN=${commonName}`],
    ])
    await writeFile(join(this.folder, 'names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n')
    await openssl(this.folder, [
      ...['x509', '-req', '-in', `${commonName}.csr`, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial'],
      ...['-out', `${commonName}.crt`, '-days', String(days), '-extfile', 'names'],
    ])
    return {
      certFile: join(this.folder, `${commonName}.crt`),
      keyFile: join(this.folder, `${commonName}.key`),
    }
  }
}

async function openssl(cwd: string, args: string[]): Promise<void> {
  try {
    await run('openssl', args, { cwd })
  } catch (cause) {
    throw new Error('The tests of TLS need an `openssl` on the PATH that can make certificates.', { cause })
  }
}
