import { Failure } from '../foundation/failure.ts'

const DEFAULT_PORT = 5432

/** A text that does not appear in logs, JSON or error messages; only `reveal` shows it. */
export class Secret {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  reveal(): string {
    return this.#text
  }

  toString(): string {
    return '******'
  }

  toJSON(): string {
    return this.toString()
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }
}

/** As libpq's `sslmode`, less `allow`, which asks for less than `prefer`. */
export type TlsMode = 'disable' | 'prefer' | 'require' | 'verify-ca' | 'verify-full'

/** How the connection is encrypted and whose certificates count (PostgreSQL documentation, 32.19 "SSL Support"). */
export interface TlsLocation {
  readonly mode: TlsMode
  /** Files in PEM format. `rootCertificate` is `system` for the authorities that Node.js trusts. */
  readonly rootCertificate: string | undefined
  readonly certificate: string | undefined
  readonly key: string | undefined
}

/** Where a database is and how to get in. It may be logged as it stands: the password shows as asterisks. */
export interface DatabaseLocation {
  /** A host name or address, or the folder of a Unix socket, which begins with a slash. */
  readonly host: string
  readonly port: number
  readonly database: string
  readonly user: string
  readonly password: Secret | undefined
  readonly tls: TlsLocation
}

const tlsModes: Readonly<Record<string, TlsMode>> = {
  disable: 'disable',
  allow: 'prefer',
  prefer: 'prefer',
  require: 'require',
  'verify-ca': 'verify-ca',
  'verify-full': 'verify-full',
}

/** No encryption: for Unix sockets, and where `sslmode` does not ask for it. */
export const noTls: TlsLocation = {
  mode: 'disable',
  rootCertificate: undefined,
  certificate: undefined,
  key: undefined,
}

/** Parameters that change nothing we promise, or that our own settings stand for. */
const ignoredParameters = new Set(['application_name', 'connect_timeout', 'keepalives', 'pool_timeout'])
const understoodParameters = 'host, port, user, password, dbname, sslmode, sslrootcert, sslcert, sslkey'

/**
 * Reads a connection URI (PostgreSQL documentation, 32.1.1.2 "Connection URIs"), with one host. A Unix socket is
 * written as `postgres://user@%2Frun%2Fpostgresql/name` or with `?host=/run/postgresql`. TLS is not asked for unless
 * `sslmode` says so.
 *
 * @throws Failure `configuration`, in a sentence without the password.
 */
export function parseDatabaseUrl(url: string): DatabaseLocation {
  const parsed = URL.parse(url)
  if (parsed === null || !['postgres:', 'postgresql:'].includes(parsed.protocol)) {
    throw refusal('is not a URL that starts with postgres:// or postgresql://')
  }
  const parameters = new Map(parsed.searchParams)
  const take = (name: string): string | undefined => {
    const value = parameters.get(name)
    parameters.delete(name)
    return value === '' ? undefined : value
  }
  const host = take('host') ?? (decode(parsed.hostname).replace(/^\[(.*)\]$/, '$1') || 'localhost')
  if (host.includes(',')) {
    throw refusal('names several hosts; name one, or a name that always leads to the primary')
  }
  const port = Number(take('port') ?? (parsed.port || DEFAULT_PORT))
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw refusal('has a port outside 1 to 65535')
  const user = take('user') ?? decode(parsed.username)
  if (user === '') throw refusal('names no user')
  const password = take('password') ?? decode(parsed.password)
  const database = take('dbname') ?? (decode(parsed.pathname.slice(1)) || user)
  const tls = tlsOf(take, host)
  for (const name of ignoredParameters) parameters.delete(name)
  const [unknown] = parameters.keys()
  if (unknown !== undefined) {
    throw refusal(
      `has the parameter ${unknown}, which Sluice does not understand; it knows ${understoodParameters}`,
    )
  }
  return { host, port, database, user, password: password === '' ? undefined : new Secret(password), tls }
}

function tlsOf(take: (name: string) => string | undefined, host: string): TlsLocation {
  const rootCertificate = take('sslrootcert')
  const written = take('sslmode') ?? (rootCertificate === 'system' ? 'verify-full' : 'disable')
  const mode = tlsModes[written]
  if (mode === undefined) {
    throw refusal(`has sslmode=${written}; it must be one of ${Object.keys(tlsModes).join(', ')}`)
  }
  const certificate = take('sslcert')
  const key = take('sslkey')
  // A Unix socket never leaves the machine and has no TLS; libpq leaves sslmode out of account there too.
  return host.startsWith('/') ? noTls : { mode, rootCertificate, certificate, key }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw refusal('has a % that does not begin a percent-encoded byte', cause)
  }
}

function refusal(what: string, cause?: unknown): Failure {
  return new Failure('configuration', `DATABASE_URL ${what}.`, cause === undefined ? {} : { cause })
}

/** The location as an operator would recognise it, without the password. */
export function describeLocation({ host, port, database, user }: DatabaseLocation): string {
  return host.startsWith('/')
    ? `${user}@${host}/.s.PGSQL.${port}/${database}`
    : `${user}@${host.includes(':') ? `[${host}]` : host}:${port}/${database}`
}

/** The location as a `DATABASE_URL`, password included: to hand on to another process, never to a log. */
export function databaseUrlWithPassword(location: DatabaseLocation): string {
  const { host, port, database, user, password, tls } = location
  const credentials =
    password === undefined
      ? encodeURIComponent(user)
      : `${encodeURIComponent(user)}:${encodeURIComponent(password.reveal())}`
  const authority = host.includes(':') ? `[${host}]` : encodeURIComponent(host)
  const parameters = new URLSearchParams()
  if (tls.mode !== 'disable') parameters.set('sslmode', tls.mode)
  if (tls.rootCertificate !== undefined) parameters.set('sslrootcert', tls.rootCertificate)
  if (tls.certificate !== undefined) parameters.set('sslcert', tls.certificate)
  if (tls.key !== undefined) parameters.set('sslkey', tls.key)
  const query = parameters.size === 0 ? '' : `?${parameters}`
  return `postgres://${credentials}@${authority}:${port}/${encodeURIComponent(database)}${query}`
}
