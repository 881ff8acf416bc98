import { availableParallelism } from 'node:os'
import { expect, test } from 'vitest'
import { readConfig, settingsByPart } from '../src/config.ts'
import type { Setting } from '../src/foundation/setting.ts'

const settings = Object.values(settingsByPart).flatMap((part) => Object.entries<Setting<unknown>>(part))

test('the defaults are those of the design', () => {
  expect(readConfig({})).toEqual({
    config: {
      GRPC_PORT: 4317,
      HTTP_SOCKET: undefined,
      REQUEST_TIMEOUT_SECONDS: 60,
      TLS_CERT_FILE: undefined,
      TLS_KEY_FILE: undefined,
      TLS_CLIENT_CA_FILE: undefined,
      CORS_ALLOWED_ORIGINS: undefined,
      CORS_ALLOWED_HEADERS: ['Authorization', 'Content-Encoding', 'Content-Type', 'X-Request-Id'],
      CORS_MAX_AGE_SECONDS: 7200,
      ENABLE_LOAD_SHEDDING: false,
      ENABLE_RATE_LIMITING: false,
      RATE_LIMIT_RPS: 100,
      RATE_LIMIT_BURST: 200,
      STAGING_MAX_BACKLOG: 1000,
      STAGING_MAX_BYTES: 4 * 2 ** 30,
      OVERFLOW_POLICY: 'reject',
      OVERFLOW_SAMPLE_RATE: 0.1,
      OVERFLOW_ACCEPTED_STATUS: '202',
      PROCESSING_QUEUE_MAX_DEPTH: 100,
      PROCESSING_QUEUE_MAX_BYTES: 64 * 2 ** 20,
      BATCH_MAX_SIZE: 25,
      BATCH_FLUSH_INTERVAL_MS: 200,
      WORKER_COUNT: 2,
      LEASE_SECONDS: 60,
      MAX_ATTEMPTS: 8,
      RETRY_BASE_MS: 1000,
      RETRY_MAX_MS: 60_000,
      CIRCUIT_FAILURE_THRESHOLD: 5,
      CIRCUIT_RESET_SECONDS: 30,
      MAX_BODY_BYTES: 20 * 2 ** 20,
      MAX_INFLIGHT_BYTES: 128 * 2 ** 20,
      STAGING_COMPRESSION: 'as_sent',
      HOST: '127.0.0.1',
      HTTP_PORT: 4318,
      PROCESSES: 1,
      ADMIN_HOST: '127.0.0.1',
      ADMIN_PORT: 8080,
      ADMIN_TOKEN: undefined,
      DATABASE_URL: undefined,
      DATA_DIR: './data',
      S3_ENDPOINT: undefined,
      S3_BUCKET: 'telemetry',
      S3_REGION: 'us-east-1',
      S3_ACCESS_KEY: undefined,
      S3_SECRET_KEY: undefined,
      S3_PREFIX: '',
      LOAD_SHEDDING_ANSWER_SECONDS: 5,
      LOAD_SHEDDING_CPU_PERCENT: 80,
      LOAD_SHEDDING_MEMORY_PERCENT: 85,
      LOG_LEVEL: 'info',
      SHUTDOWN_GRACE_SECONDS: 30,
    },
    warnings: [],
  })
})

test('every default written out is taken and means the same', () => {
  const written = Object.fromEntries(settings.map(([name, { defaultText }]) => [name, defaultText]))
  expect(readConfig(written)).toEqual(readConfig({}))
})

test('no two parts declare the same name, nor the alias of another', () => {
  const names = settings.flatMap(([name, { aliases }]) => [name, `OTEL_${name}`, ...aliases])
  expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([])
})

test('every setting is described by a sentence', () => {
  for (const [name, { about }] of settings) expect(about, name).toMatch(/^[A-Z][^\n]+\.$/)
})

test('the log level that an SDK would read from OTEL_LOG_LEVEL does not stop the start', () => {
  const levels = ['NONE', 'ERROR', 'WARN', 'INFO', 'DEBUG', 'VERBOSE', 'ALL']
  expect(levels.map((level) => readConfig({ OTEL_LOG_LEVEL: level }).config.LOG_LEVEL)).toEqual([
    'silent',
    'error',
    'warn',
    'info',
    'debug',
    'debug',
    'debug',
  ])
})

test('half of the store’s credentials is a fault', () => {
  expect(() => readConfig({ S3_ENDPOINT: 'http://minio:9000', AWS_ACCESS_KEY_ID: 'sluice' })).toThrow(
    '1 setting is wrong:\n  S3_ENDPOINT=http://minio:9000, AWS_ACCESS_KEY_ID=******, S3_SECRET_KEY not set: with S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY must be set too',
  )
})

const faultOf = (environment: Record<string, string>) => {
  try {
    readConfig(environment)
    return undefined
  } catch (thrown) {
    return String(thrown).split('\n').slice(1).join('\n').trim()
  }
}

test('PROCESSES is a number of processes, or one for each core', () => {
  expect(readConfig({ PROCESSES: 'auto' }).config.PROCESSES).toBe(availableParallelism())
  expect(readConfig({ PROCESSES: '4' }).config.PROCESSES).toBe(4)
  for (const wrong of ['0', '-1', 'x', '1.5', '1000']) {
    expect(faultOf({ PROCESSES: wrong })).toBe(
      `PROCESSES=${wrong}: must be auto or a whole number from 1 to 256`,
    )
  }
  expect(readConfig({ PROCESSES: '64', DATABASE_URL: 'postgres://a@b/c' }).config.PROCESSES).toBe(64)
  expect(faultOf({ PROCESSES: '28' })).toBe(
    'PROCESSES=28, WORKER_COUNT=2, DATABASE_URL not set: without DATABASE_URL, WORKER_COUNT and three times PROCESSES must be at most 85: each opens connections, and the embedded PostgreSQL takes 100',
  )
  const shared = { PROCESSES: '4', RATE_LIMIT_BURST: '3' }
  expect(faultOf(shared)).toBe(undefined)
  expect(faultOf({ ...shared, ENABLE_RATE_LIMITING: 'true' })).toBe(
    'PROCESSES=4, RATE_LIMIT_BURST=3: with ENABLE_RATE_LIMITING, RATE_LIMIT_BURST must be at least PROCESSES: each needs room for one request',
  )
})

test('a queue or a budget in which the largest request could never have a place is a fault', () => {
  const small = { MAX_BODY_BYTES: '1MiB', STAGING_MAX_BYTES: '4MiB', MAX_INFLIGHT_BYTES: '6MiB' }
  expect([
    faultOf(small),
    faultOf({ ...small, STAGING_MAX_BYTES: '4194303' }),
    faultOf({ ...small, MAX_INFLIGHT_BYTES: '6291455' }),
    faultOf({ MAX_BODY_BYTES: '512MiB', MAX_INFLIGHT_BYTES: '3GiB' }),
    faultOf({ MAX_BODY_BYTES: '536870913', MAX_INFLIGHT_BYTES: '4GiB' }),
  ]).toEqual([
    undefined,
    'MAX_BODY_BYTES=1MiB, STAGING_MAX_BYTES=4194303: STAGING_MAX_BYTES must be at least 4 times MAX_BODY_BYTES, to which JSON can grow: the largest request would be told to come again for ever',
    'MAX_BODY_BYTES=1MiB, MAX_INFLIGHT_BYTES=6291455: MAX_INFLIGHT_BYTES must be at least 6 times MAX_BODY_BYTES: as sent, unpacked and turned into protobuf the largest request could never be taken',
    undefined,
    'MAX_BODY_BYTES=536870913: must be a number of bytes such as 1048576, 20MiB or 4GiB, at least 1KiB and at most 512MiB',
  ])
})
