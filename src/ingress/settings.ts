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
    max: 1024 ** 3,
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

export const ingressRules: readonly SettingsRule<typeof ingressSettings>[] = [
  {
    names: ['MAX_BODY_BYTES', 'MAX_INFLIGHT_BYTES'],
    rule: 'MAX_BODY_BYTES must not be larger than MAX_INFLIGHT_BYTES: the largest request could never be taken',
    holds: (values) => values.MAX_BODY_BYTES <= values.MAX_INFLIGHT_BYTES,
  },
]
