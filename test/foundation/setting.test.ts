import { describe, expect, expectTypeOf, test } from 'vitest'
import {
  boolean,
  bytes,
  bytesText,
  decimal,
  type Environment,
  integer,
  list,
  maskUrl,
  oneOf,
  type Parsed,
  parseSettings,
  type SettingsDeclaration,
  SettingsError,
  type SettingsRule,
  secret,
  text,
  url,
} from '../../src/foundation/setting.ts'

const declaration = {
  WORKER_COUNT: integer({ default: 2, min: 1, max: 64, about: 'Writers.' }),
  LEASE_SECONDS: integer({ default: 60, min: 5, unit: 'seconds', about: 'Lease.' }),
  BATCH_MAX_SIZE: integer({ default: 25, min: 1, about: 'Rows.' }),
  PROCESSING_QUEUE_MAX_DEPTH: integer({ default: 100, min: 1, about: 'Rows in memory.' }),
  RATE_LIMIT_RPS: decimal({ default: 100, min: 0.1, about: 'Rate.' }),
  ENABLE_RATE_LIMITING: boolean({ default: false, about: 'Whether to limit.' }),
  OVERFLOW_POLICY: oneOf({
    choices: ['reject', 'drop', 'sample'],
    default: 'reject',
    synonyms: { refuse: 'reject' },
    about: 'Policy.',
  }),
  HOST: text({ default: '127.0.0.1', about: 'Host.' }),
  S3_BUCKET: text({
    default: 'telemetry',
    pattern: /^[a-z]{3,}$/,
    rule: 'at least three lower-case letters',
    about: 'Bucket.',
  }),
  CORS_ALLOWED_HEADERS: list({
    default: ['Content-Type', 'X-Request-Id'],
    pattern: /^[\w-]+$/,
    rule: 'names with commas between them',
    about: 'Headers.',
  }),
  MAX_BODY_BYTES: bytes({ default: 20 * 2 ** 20, min: 1024, max: 2 ** 31, about: 'Body.' }),
  DATABASE_URL: url({ schemes: ['postgres', 'postgresql'], about: 'Database.', whenUnset: 'embedded' }),
  S3_ACCESS_KEY: secret({ aliases: ['AWS_ACCESS_KEY_ID'], about: 'Key.' }),
  ADMIN_TOKEN: secret({ pattern: /^\S{8,}$/, rule: 'a text of at least 8 characters', about: 'Token.' }),
} satisfies SettingsDeclaration

const rules: SettingsRule<typeof declaration>[] = [
  {
    names: ['BATCH_MAX_SIZE', 'PROCESSING_QUEUE_MAX_DEPTH'],
    rule: 'BATCH_MAX_SIZE must not exceed PROCESSING_QUEUE_MAX_DEPTH, or no batch could ever be full',
    holds: (values) => values.BATCH_MAX_SIZE <= values.PROCESSING_QUEUE_MAX_DEPTH,
  },
]

const defaults = {
  WORKER_COUNT: 2,
  LEASE_SECONDS: 60,
  BATCH_MAX_SIZE: 25,
  PROCESSING_QUEUE_MAX_DEPTH: 100,
  RATE_LIMIT_RPS: 100,
  ENABLE_RATE_LIMITING: false,
  OVERFLOW_POLICY: 'reject',
  HOST: '127.0.0.1',
  S3_BUCKET: 'telemetry',
  CORS_ALLOWED_HEADERS: ['Content-Type', 'X-Request-Id'],
  MAX_BODY_BYTES: 20_971_520,
  DATABASE_URL: undefined,
  S3_ACCESS_KEY: undefined,
  ADMIN_TOKEN: undefined,
}

const parse = (environment: Environment) => parseSettings(declaration, environment, rules)

function faultsOf(environment: Environment): readonly string[] {
  try {
    parse(environment)
  } catch (error) {
    if (error instanceof SettingsError) return error.faults
    throw error
  }
  return []
}

describe('values', () => {
  test('an empty environment gives every default and no warning', () => {
    expect(parse({})).toEqual({ values: defaults, warnings: [] })
  })

  test('a default makes the type certain, its absence makes it optional', () => {
    expectTypeOf<Parsed<typeof declaration>>().toEqualTypeOf<{
      readonly WORKER_COUNT: number
      readonly LEASE_SECONDS: number
      readonly BATCH_MAX_SIZE: number
      readonly PROCESSING_QUEUE_MAX_DEPTH: number
      readonly RATE_LIMIT_RPS: number
      readonly ENABLE_RATE_LIMITING: boolean
      readonly OVERFLOW_POLICY: 'reject' | 'drop' | 'sample'
      readonly HOST: string
      readonly S3_BUCKET: string
      readonly CORS_ALLOWED_HEADERS: readonly string[]
      readonly MAX_BODY_BYTES: number
      readonly DATABASE_URL: string | undefined
      readonly S3_ACCESS_KEY: string | undefined
      readonly ADMIN_TOKEN: string | undefined
    }>()
  })

  test('every kind is read from its text', () => {
    const written = {
      WORKER_COUNT: ' 8 ',
      RATE_LIMIT_RPS: '2.5',
      ENABLE_RATE_LIMITING: 'TRUE',
      OVERFLOW_POLICY: 'Sample',
      HOST: '::',
      CORS_ALLOWED_HEADERS: 'Authorization, X-One,,X-Two ',
      MAX_BODY_BYTES: '1048576',
      DATABASE_URL: 'postgres://u:p@db/sluice',
      ADMIN_TOKEN: 'correct-horse',
    }
    expect(parse(written).values).toEqual({
      ...defaults,
      WORKER_COUNT: 8,
      RATE_LIMIT_RPS: 2.5,
      ENABLE_RATE_LIMITING: true,
      OVERFLOW_POLICY: 'sample',
      HOST: '::',
      CORS_ALLOWED_HEADERS: ['Authorization', 'X-One', 'X-Two'],
      MAX_BODY_BYTES: 1_048_576,
      DATABASE_URL: 'postgres://u:p@db/sluice',
      ADMIN_TOKEN: 'correct-horse',
    })
  })

  test.each([
    ['20971520', 20_971_520],
    ['20MiB', 20_971_520],
    ['20 mib', 20_971_520],
    ['0.5GiB', 536_870_912],
    ['2KiB', 2048],
  ])('bytes written as %s are %i', (written, count) => {
    expect(parse({ MAX_BODY_BYTES: written }).values.MAX_BODY_BYTES).toBe(count)
  })

  test.each(['20MB', '1.0001KiB', '-1', 'x', '20 MiB of it', '9999999999999999999'])(
    '%s is no number of bytes',
    (written) => {
      expect(faultsOf({ MAX_BODY_BYTES: written })).toEqual([
        `MAX_BODY_BYTES=${written}: must be a number of bytes such as 1048576, 20MiB or 4GiB, at least 1KiB and at most 2GiB`,
      ])
    },
  )

  test.each(['1e3', '0x10', '1_000', '2.0', '٣', '9007199254740993'])('%s is no whole number', (written) => {
    expect(faultsOf({ LEASE_SECONDS: written })).toEqual([
      `LEASE_SECONDS=${written}: must be a whole number of seconds of at least 5`,
    ])
  })

  test('a synonym stands for its choice', () => {
    expect(parse({ OVERFLOW_POLICY: 'refuse' }).values.OVERFLOW_POLICY).toBe('reject')
  })

  test('a word that every object inherits is no choice and no boolean', () => {
    expect(faultsOf({ OVERFLOW_POLICY: 'constructor', ENABLE_RATE_LIMITING: 'constructor' })).toEqual([
      'ENABLE_RATE_LIMITING=constructor: must be true or false',
      'OVERFLOW_POLICY=constructor: must be one of reject, drop, sample',
    ])
  })

  test('bytes are shown in the largest unit that divides them', () => {
    expect([0, 1023, 1024, 1536, 20 * 2 ** 20, 4 * 2 ** 30, 2 ** 40].map(bytesText)).toEqual([
      '0',
      '1023',
      '1KiB',
      '1536',
      '20MiB',
      '4GiB',
      '1TiB',
    ])
  })
})

describe('names', () => {
  test('each setting is also read under its OTEL_ name', () => {
    expect(parse({ OTEL_WORKER_COUNT: '3' }).values.WORKER_COUNT).toBe(3)
  })

  test('the unprefixed name wins over the prefixed one, and both over an alias', () => {
    const both = {
      WORKER_COUNT: '4',
      OTEL_WORKER_COUNT: '3',
      OTEL_S3_ACCESS_KEY: 'a',
      AWS_ACCESS_KEY_ID: 'b',
    }
    expect(parse(both).values).toEqual({ ...defaults, WORKER_COUNT: 4, S3_ACCESS_KEY: 'a' })
    expect(parse({ AWS_ACCESS_KEY_ID: 'b' }).values.S3_ACCESS_KEY).toBe('b')
  })

  test('a blank variable is one that is not set', () => {
    expect(parse({ WORKER_COUNT: ' ', OTEL_WORKER_COUNT: '3', HOST: '' }).values).toEqual({
      ...defaults,
      WORKER_COUNT: 3,
    })
  })

  test.each([
    ['BATCH_MAXSIZE', 'BATCH_MAX_SIZE'],
    ['BATCHMAXSIZE', 'BATCH_MAX_SIZE'],
    ['batch_max_size', 'BATCH_MAX_SIZE'],
    ['BATCH_SIZE_MAX', 'BATCH_MAX_SIZE'],
    ['BATCH_SIZE', undefined],
    ['BATCH_MAX_SIZES', 'BATCH_MAX_SIZE'],
    ['OTEL_BATCH_MAXSIZE', 'BATCH_MAX_SIZE'],
    ['WORKERS_COUNT', 'WORKER_COUNT'],
    ['DATABASE_URI', 'DATABASE_URL'],
    ['S3_ACCESS_KEY_ID', 'S3_ACCESS_KEY'],
    ['AWS_ACCESS_KEY_IDS', 'AWS_ACCESS_KEY_ID'],
    ['LEASE_SECOND', 'LEASE_SECONDS'],
  ])('%s is pointed out as a misspelling of %s', (name, meant) => {
    expect(parse({ [name]: '7' })).toEqual({
      values: defaults,
      warnings:
        meant === undefined ? [] : [`${name} is not a setting and has no effect; did you mean ${meant}?`],
    })
  })

  test('names of the system and of the SDKs are left in peace', () => {
    const theirs = [
      'PATH HOME HOSTNAME POST HOSTS PWD USER SHELL TERM LANG LOGNAME EDITOR NODE_ENV NODE_OPTIONS HTTP_PROXY HTTPS_PROXY',
      'NO_PROXY npm_config_cache DATABASE_HOST WORKER_CLASS AWS_REGION KUBERNETES_SERVICE_HOST PGHOST PGDATABASE',
      'OTEL_EXPORTER_OTLP_ENDPOINT OTEL_EXPORTER_OTLP_HEADERS OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_SERVICE_NAME',
      'OTEL_RESOURCE_ATTRIBUTES OTEL_BSP_MAX_QUEUE_SIZE OTEL_BSP_MAX_EXPORT_BATCH_SIZE OTEL_BSP_SCHEDULE_DELAY',
      'OTEL_BLRP_MAX_QUEUE_SIZE OTEL_SDK_DISABLED OTEL_PROPAGATORS OTEL_TRACES_SAMPLER OTEL_METRIC_EXPORT_INTERVAL',
      'OTEL_ATTRIBUTE_COUNT_LIMIT OTEL_SPAN_EVENT_COUNT_LIMIT OTEL_TRACES_EXPORTER OTEL_LOG_LEVEL',
    ].flatMap((line) => line.split(' '))
    expect(parse(Object.fromEntries(theirs.map((name) => [name, 'x'])))).toEqual({
      values: defaults,
      warnings: [],
    })
  })
})

describe('faults', () => {
  test('all are reported together, each with the name that was read, the value and the rule', () => {
    const environment = {
      WORKER_COUNT: 'many',
      OTEL_LEASE_SECONDS: '2',
      RATE_LIMIT_RPS: '0',
      ENABLE_RATE_LIMITING: 'perhaps',
      OVERFLOW_POLICY: 'burn',
      S3_BUCKET: 'AB',
      CORS_ALLOWED_HEADERS: 'a, b c',
      DATABASE_URL: 'mysql://root:hunter2@db/x',
      ADMIN_TOKEN: 'short',
      BATCH_MAXSIZE: '50',
    }
    expect(() => parse(environment)).toThrow(
      new SettingsError([
        'WORKER_COUNT=many: must be a whole number from 1 to 64',
        'OTEL_LEASE_SECONDS=2: must be a whole number of seconds of at least 5',
        'RATE_LIMIT_RPS=0: must be a number of at least 0.1',
        'ENABLE_RATE_LIMITING=perhaps: must be true or false',
        'OVERFLOW_POLICY=burn: must be one of reject, drop, sample',
        'S3_BUCKET=AB: must be at least three lower-case letters',
        'CORS_ALLOWED_HEADERS=a, b c: must be names with commas between them',
        'DATABASE_URL=mysql://******@db/x: must be a URL that starts with postgres:// or postgresql://',
        'ADMIN_TOKEN=******: must be a text of at least 8 characters',
        'BATCH_MAXSIZE is not a setting and has no effect; did you mean BATCH_MAX_SIZE?',
      ]),
    )
  })

  test('the message can be printed as it is', () => {
    expect(new SettingsError(['A=1: must be 2', 'B=1: must be 2']).message).toBe(
      '2 settings are wrong:\n  A=1: must be 2\n  B=1: must be 2',
    )
  })

  test('a rule over two settings names both values, the default too', () => {
    expect(faultsOf({ BATCH_MAX_SIZE: '101' })).toEqual([
      'BATCH_MAX_SIZE=101, PROCESSING_QUEUE_MAX_DEPTH=100: BATCH_MAX_SIZE must not exceed PROCESSING_QUEUE_MAX_DEPTH, or no batch could ever be full',
    ])
  })

  test('a rule is not judged on a value that is wrong already', () => {
    expect(faultsOf({ BATCH_MAX_SIZE: '0' })).toEqual([
      'BATCH_MAX_SIZE=0: must be a whole number of at least 1',
    ])
  })

  test.each([
    ['postgres://u:p%40ss@db/x', 'postgres://******@db/x'],
    ['postgres://u:p@ss/word@db/x?a=1', 'postgres://******@db/x?a=1'],
    ['postgres://db/x?user=u&password=p&sslkey=k', 'postgres://db/x?user=u&password=******&sslkey=******'],
    ['u:p@db', '******'],
    ['db:5432', 'db:5432'],
  ])('credentials in %s are masked', (written, masked) => {
    expect(maskUrl(written)).toBe(masked)
  })
})
