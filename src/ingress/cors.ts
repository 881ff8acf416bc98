import type { IncomingMessage } from 'node:http'
import { Failure } from '../foundation/failure.ts'

/** Which pages may send OTLP/HTTP from a browser, as the settings say it. */
export interface CorsOptions {
  /** `*`, origins such as `https://app.example.com`, or all below a domain: `https://*.example.com`. */
  allowedOrigins: readonly string[]
  /** Names of request headers, or `*` for all that are asked for. `Content-Type` is always among them. */
  allowedHeaders: readonly string[]
  maxAgeSeconds: number
}

/** Those options, ready to be asked. */
export interface Cors {
  readonly anyOrigin: boolean
  readonly origins: ReadonlySet<string>
  readonly domains: readonly { readonly start: string; readonly end: string }[]
  readonly anyHeader: boolean
  /** In lower case. */
  readonly headers: ReadonlySet<string>
  readonly maxAgeSeconds: string
}

/** Header names and values in turn, as Node's `writeHead` takes them. */
export type RawHeaders = readonly string[]

/** What a page may read of an answer; nothing else of its headers is shown to it (Fetch, section 3.3.3). */
const EXPOSED_HEADERS = 'Retry-After, X-Request-Id'
/** Without a media type of OTLP's nothing is taken, and no browser sends one of those without having asked. */
const NEEDED_HEADER = 'content-type'
const ORIGIN_CHARACTERS_MAX = 300
const printable = /^[\x21-\x7e]+$/
const subdomain = /^(?:[a-z0-9_-]+\.)*[a-z0-9_-]+$/
const token = /^[!#$%&'*+.^_`|~0-9a-z-]+$/
const everything = '*'

/**
 * Reads the options once.
 *
 * @throws Failure `configuration` for what is no origin.
 */
export function corsOf({ allowedOrigins, allowedHeaders, maxAgeSeconds }: CorsOptions): Cors {
  const listed = allowedOrigins.filter((origin) => origin !== everything)
  const domains = listed.filter((origin) => origin.includes('://*.'))
  return {
    anyOrigin: allowedOrigins.includes(everything),
    origins: new Set(listed.filter((origin) => !domains.includes(origin)).map(normalOrigin)),
    domains: domains.map((origin) => {
      const [start = '', end = ''] = normalOrigin(origin).split('*')
      return { start, end }
    }),
    anyHeader: allowedHeaders.includes(everything),
    headers: new Set([NEEDED_HEADER, ...allowedHeaders.map((name) => name.toLowerCase())]),
    maxAgeSeconds: String(maxAgeSeconds),
  }
}

/** An origin as browsers write it: in lower case, without the port that goes without saying (RFC 6454, section 6.1). */
function normalOrigin(origin: string): string {
  const url = URL.parse(origin.replace('://*.', '://any.'))
  if (url === null || url.origin === 'null' || url.pathname !== '/') {
    throw new Failure('configuration', `CORS_ALLOWED_ORIGINS: ${JSON.stringify(origin)} is no origin`)
  }
  return origin.includes('://*.') ? url.origin.replace('://any.', '://*.') : url.origin
}

/** Whether a browser asks with this request if it may send another (Fetch, "CORS-preflight request"). */
export function isPreflight(incoming: IncomingMessage): boolean {
  return (
    incoming.method === 'OPTIONS' &&
    incoming.headers.origin !== undefined &&
    incoming.headers['access-control-request-method'] !== undefined
  )
}

/** The headers of the answer to a preflight. To an origin that is not allowed it says nothing, which browsers take for no. */
export function preflightHeaders(cors: Cors, incoming: IncomingMessage): RawHeaders {
  const { origin } = incoming.headers
  const headers = originHeaders(cors, origin)
  if (headers === unknownOrigin) return headers
  const wanted = allowedOf(cors, incoming.headers['access-control-request-headers'])
  return [
    ...headers,
    'Access-Control-Allow-Methods',
    'POST',
    ...(wanted === '' ? [] : ['Access-Control-Allow-Headers', wanted]),
    'Access-Control-Max-Age',
    cors.maxAgeSeconds,
  ]
}

/** The headers that let a page read an answer, whatever its status. */
export function answerHeaders(cors: Cors, origin: string | undefined): RawHeaders {
  const headers = originHeaders(cors, origin)
  return headers === unknownOrigin ? headers : [...headers, 'Access-Control-Expose-Headers', EXPOSED_HEADERS]
}

/** A cache must not show one origin's answer to another, nor the answer to none to any (Fetch, "CORS protocol and HTTP caches"). */
const vary = ['Vary', 'Origin'] as const
const unknownOrigin: RawHeaders = vary

/**
 * Credentials (cookies, client certificates, and all that `navigator.sendBeacon` sends) are allowed to origins that
 * somebody listed by their name or domain. An origin that only `*` lets in may send, without them: else any page in
 * the world could send in the name of whoever looks at it. The origin is echoed for both, so that there is one form.
 */
function originHeaders(cors: Cors, origin: string | undefined): RawHeaders {
  if (origin === undefined) return unknownOrigin
  if (isListed(cors, origin)) {
    return [...vary, 'Access-Control-Allow-Origin', origin, 'Access-Control-Allow-Credentials', 'true']
  }
  if (!cors.anyOrigin || origin.length > ORIGIN_CHARACTERS_MAX || !printable.test(origin))
    return unknownOrigin
  return [...vary, 'Access-Control-Allow-Origin', origin]
}

function isListed({ origins, domains }: Cors, origin: string): boolean {
  if (origins.has(origin)) return true
  return domains.some(
    ({ start, end }) =>
      origin.length > start.length + end.length &&
      origin.startsWith(start) &&
      origin.endsWith(end) &&
      subdomain.test(origin.slice(start.length, -end.length)),
  )
}

/** Those of the headers asked for that a page may set, as it wrote them. */
function allowedOf({ anyHeader, headers }: Cors, asked: string | undefined): string {
  if (asked === undefined) return ''
  return asked
    .split(',')
    .map((name) => name.trim())
    .filter((name) => {
      const lower = name.toLowerCase()
      return anyHeader ? token.test(lower) : headers.has(lower)
    })
    .join(', ')
}
