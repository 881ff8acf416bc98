import { availableParallelism } from 'node:os'
import {
  boolean,
  bytes,
  decimal,
  integer,
  list,
  oneOf,
  type SettingsRule,
  secret,
  text,
} from '../foundation/setting.ts'
import { GROWTH_MAX } from '../otlp/json-to-protobuf.ts'

export { GROWTH_MAX }

/** What one request can hold at once of the bytes in flight, in bodies: as it came, unpacked, and grown. */
const HELD_BODIES_MAX = 1 + 1 + GROWTH_MAX

/** Where Sluice listens, and what it takes. */
export const ingressSettings = {
  HOST: text({ default: '127.0.0.1', about: 'The address that OTLP is taken on; 0.0.0.0 for every one.' }),
  HTTP_PORT: integer({
    default: 4318,
    min: 0,
    max: 65_535,
    about: 'The port of OTLP/HTTP; 0 for any free one.',
  }),
  GRPC_PORT: integer({
    default: 4317,
    min: 0,
    max: 65_535,
    about: 'The port of OTLP/gRPC; 0 for any free one.',
  }),
  HTTP_SOCKET: text({
    pattern: /^\/.{0,105}$/,
    rule: 'an absolute path of at most 106 characters, as a Unix socket can have',
    about: 'The path of a Unix socket on which OTLP/HTTP is taken too, in plain HTTP.',
    whenUnset: 'no Unix socket',
  }),
  PROCESSES: integer({
    default: 1,
    min: 1,
    max: 256,
    words: { auto: availableParallelism() },
    about:
      'In how many processes OTLP is taken, all on the same ports; auto for one on each core. A worker has no use for it.',
  }),
  ADMIN_HOST: text({ default: '127.0.0.1', about: 'The address of health, metrics and the API.' }),
  ADMIN_PORT: integer({
    default: 8080,
    min: 0,
    max: 65_535,
    about: 'The port of health, metrics and the API; 0 for any free one.',
  }),
  ADMIN_TOKEN: secret({
    about: 'The bearer token that the API asks for.',
    whenUnset: 'an admin port beyond loopback serves health and metrics only',
  }),
  MAX_BODY_BYTES: bytes({
    default: 20 * 1024 ** 2,
    min: 1024,
    max: 512 * 1024 ** 2,
    about: 'The largest request, both as it is sent and unpacked; a larger one is answered 413.',
  }),
  MAX_INFLIGHT_BYTES: bytes({
    default: 128 * 1024 ** 2,
    min: 1024,
    about:
      'How many bytes of requests each of the PROCESSES may have in memory between the wire and the commit; beyond it the answer is 503.',
  }),
  STAGING_COMPRESSION: oneOf({
    choices: ['as_sent', 'gzip'],
    default: 'as_sent',
    about:
      'What becomes of requests that come without a Content-Encoding: as_sent stages and stores them as they are, gzip packs those of 1 KiB and more first.',
  }),
  REQUEST_TIMEOUT_SECONDS: integer({
    default: 60,
    min: 1,
    max: 3600,
    unit: 'seconds',
    about: 'How long a request may take to come whole; a slower sender is cut off.',
  }),
  TLS_CERT_FILE: text({
    about:
      'The PEM file of the certificate and its chain, with which OTLP is taken over TLS 1.2 and 1.3 only.',
    whenUnset: 'OTLP is taken without TLS',
  }),
  TLS_KEY_FILE: text({
    about: 'The PEM file of the private key of that certificate.',
    whenUnset: 'an error if `TLS_CERT_FILE` is set',
  }),
  TLS_CLIENT_CA_FILE: text({
    about: 'The PEM file of the authorities that must have signed the certificate of every client (mTLS).',
    whenUnset: 'clients need no certificate',
  }),
  CORS_ALLOWED_ORIGINS: list({
    pattern: /^(?:\*|https?:\/\/(?:\*\.)?[A-Za-z0-9.[\]:-]+)$/,
    rule: '* or origins such as https://app.example.com or https://*.example.com, with commas between them',
    about: 'The origins whose pages may send OTLP/HTTP from a browser; * for every one.',
    whenUnset: 'browsers let no page of another origin send',
  }),
  CORS_ALLOWED_HEADERS: list({
    default: ['Authorization', 'Content-Encoding', 'Content-Type', 'X-Request-Id'],
    pattern: /^(?:\*|[!#$%&'+.^_`|~0-9A-Za-z-]+)$/,
    rule: '* or names of headers, with commas between them',
    about: 'The request headers that those pages may set; * for every one.',
  }),
  CORS_MAX_AGE_SECONDS: integer({
    default: 7200,
    min: 0,
    max: 86_400,
    unit: 'seconds',
    about: 'How long a browser may remember what it was allowed.',
  }),
  ENABLE_RATE_LIMITING: boolean({ default: false, about: 'Whether requests are limited by a token bucket.' }),
  RATE_LIMIT_RPS: decimal({
    default: 100,
    min: 0.001,
    max: 1_000_000,
    unit: 'requests a second',
    about:
      'How many requests a second are let in, in the long run; each of the PROCESSES lets in an equal share of them.',
  }),
  RATE_LIMIT_BURST: integer({
    default: 200,
    min: 1,
    max: 10_000_000,
    unit: 'requests',
    about: 'How many requests may come at once after a pause, shared in the same way.',
  }),
  ENABLE_LOAD_SHEDDING: boolean({
    default: false,
    about:
      'Whether a share of the requests is refused under overload: by X-Priority, 80 % of low, 30 % of normal and 10 % of high ones.',
  }),
  LOAD_SHEDDING_CPU_PERCENT: integer({
    default: 80,
    min: 1,
    max: 100,
    unit: 'percent',
    about:
      'From this share of its time on that the thread which takes requests is busy, load shedding sees an overload.',
  }),
  LOAD_SHEDDING_MEMORY_PERCENT: integer({
    default: 85,
    min: 1,
    max: 100,
    unit: 'percent',
    about:
      "From this share of the container's or else the machine's memory on that is in use, load shedding sees an overload.",
  }),
  LOAD_SHEDDING_ANSWER_SECONDS: decimal({
    default: 5,
    min: 0.001,
    max: 60,
    unit: 'seconds',
    about: 'When half of the requests take at least so long to be staged, load shedding sees an overload.',
  }),
  OVERFLOW_ACCEPTED_STATUS: oneOf({
    choices: ['202', '200'],
    default: '202',
    about:
      'The status for what OVERFLOW_POLICY drop and sample threw away; 200 for exporters that take no other 2xx, older Go and Ruby ones among them.',
  }),
}

/** Rules over several settings of the ingress. */
export const ingressRules: readonly SettingsRule<typeof ingressSettings>[] = [
  {
    names: ['TLS_CERT_FILE', 'TLS_KEY_FILE'],
    rule: 'TLS_CERT_FILE and TLS_KEY_FILE must be set together',
    holds: (values) => (values.TLS_CERT_FILE === undefined) === (values.TLS_KEY_FILE === undefined),
  },
  {
    names: ['TLS_CLIENT_CA_FILE', 'TLS_CERT_FILE'],
    rule: 'TLS_CLIENT_CA_FILE needs TLS_CERT_FILE: only a TLS listener can ask clients for a certificate',
    holds: (values) => values.TLS_CLIENT_CA_FILE === undefined || values.TLS_CERT_FILE !== undefined,
  },
  {
    names: ['PROCESSES', 'RATE_LIMIT_BURST'],
    rule: 'with ENABLE_RATE_LIMITING, RATE_LIMIT_BURST must be at least PROCESSES: each needs room for one request',
    holds: (values) => !values.ENABLE_RATE_LIMITING || values.RATE_LIMIT_BURST >= values.PROCESSES,
  },
  {
    names: ['MAX_BODY_BYTES', 'MAX_INFLIGHT_BYTES'],
    rule: `MAX_INFLIGHT_BYTES must be at least ${HELD_BODIES_MAX} times MAX_BODY_BYTES: as sent, unpacked and turned into protobuf the largest request could never be taken`,
    holds: (values) => HELD_BODIES_MAX * values.MAX_BODY_BYTES <= values.MAX_INFLIGHT_BYTES,
  },
]
