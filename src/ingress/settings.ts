import {
  boolean,
  bytes,
  decimal,
  integer,
  oneOf,
  type SettingsRule,
  secret,
  text,
} from '../foundation/setting.ts'

/**
 * How much larger a request can be when it is staged than when it came, or was unpacked: in JSON a bucket count takes two
 * bytes, a digit and a comma, and eight in protobuf. The repair of strings makes at most three bytes of one.
 */
export const GROWTH_MAX = 4
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
      'How many bytes of requests may be in memory between the wire and the commit; beyond it the answer is 503.',
  }),
  ENABLE_RATE_LIMITING: boolean({ default: false, about: 'Whether requests are limited by a token bucket.' }),
  RATE_LIMIT_RPS: decimal({
    default: 100,
    min: 0.001,
    max: 1_000_000,
    unit: 'requests a second',
    about: 'How many requests a second are let in, in the long run.',
  }),
  RATE_LIMIT_BURST: integer({
    default: 200,
    min: 1,
    max: 10_000_000,
    unit: 'requests',
    about: 'How many requests may come at once after a pause.',
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
    names: ['MAX_BODY_BYTES', 'MAX_INFLIGHT_BYTES'],
    rule: `MAX_INFLIGHT_BYTES must be at least ${HELD_BODIES_MAX} times MAX_BODY_BYTES: as sent, unpacked and turned into protobuf the largest request could never be taken`,
    holds: (values) => HELD_BODIES_MAX * values.MAX_BODY_BYTES <= values.MAX_INFLIGHT_BYTES,
  },
]
