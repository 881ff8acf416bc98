import { expect, test } from 'vitest'
import { parseSettings, SettingsError } from '../../src/foundation/setting.ts'
import { minioSettings, sinkRules, sinkSettings } from '../../src/sink/settings.ts'

const parse = (environment: Record<string, string>) =>
  parseSettings(sinkSettings, environment, sinkRules).values

function faultsOf(environment: Record<string, string>): readonly string[] {
  try {
    parse(environment)
  } catch (error) {
    if (error instanceof SettingsError) return error.faults
    throw error
  }
  return []
}

const server = { S3_ENDPOINT: 'https://s3.example:9000', S3_ACCESS_KEY: 'key', S3_SECRET_KEY: 'the-secret' }

test('without an endpoint objects go to a folder', () => {
  expect(minioSettings(parse({}))).toBeUndefined()
  expect(parse({})).toMatchObject({ S3_BUCKET: 'telemetry', S3_PREFIX: '' })
})

test('with an endpoint they go to its bucket', () => {
  expect(minioSettings(parse({ ...server, S3_BUCKET: 'my.bucket-1', S3_REGION: 'eu-1' }))).toEqual({
    endpoint: new URL('https://s3.example:9000'),
    bucket: 'my.bucket-1',
    region: 'eu-1',
    accessKey: 'key',
    secretKey: 'the-secret',
  })
})

test("the names that Amazon's tools use are taken for the keys", () => {
  const { S3_ENDPOINT } = server
  const environment = { S3_ENDPOINT, AWS_ACCESS_KEY_ID: 'theirs', AWS_SECRET_ACCESS_KEY: 'their-secret' }
  expect(minioSettings(parse(environment))).toMatchObject({ accessKey: 'theirs', secretKey: 'their-secret' })
  expect(minioSettings(parse({ ...environment, ...server }))).toMatchObject({ accessKey: 'key' })
})

test('an endpoint without keys is one fault that names all three', () => {
  expect(faultsOf({ S3_ENDPOINT: 'http://127.0.0.1:9000', S3_SECRET_KEY: 'the-secret' })).toEqual([
    expect.stringMatching(
      /^S3_ENDPOINT=.*with S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY must be set too$/,
    ),
  ])
})

test.each([
  'http://h/bucket',
  'http://h/?a=b',
  'http://user:word@h',
  'http://h/#x',
  'ftp://h',
  'h:9000',
  'minio',
])('an endpoint must be a scheme and a host: %s', (S3_ENDPOINT) => {
  const faults = faultsOf({ ...server, S3_ENDPOINT })
  expect(faults).toHaveLength(1)
  expect(faults.join()).toMatch('must be')
  expect(faults.join()).not.toMatch(/the-secret|word/)
})

test.each(['ab', 'Upper', 'a_b', '-ab', 'ab-', 'a..b', '10.0.0.1', 'a'.repeat(64)])(
  'a bucket must have a name that S3 takes: %s',
  (S3_BUCKET) => {
    expect(faultsOf({ S3_BUCKET })).toEqual([
      `S3_BUCKET=${S3_BUCKET}: must be 3 to 63 small letters, digits, dots and hyphens that begin and end with a letter or digit`,
    ])
  },
)

test.each(['a', '/a/', 'a//b/', '../', 'a/../', './', 'a b/', 'é/', 'a\\/', '/', `${'a'.repeat(256)}/`])(
  'a prefix must end with a slash and lead nowhere else: %s',
  (S3_PREFIX) => {
    expect(faultsOf({ S3_PREFIX })).toHaveLength(1)
  },
)

test.each(['a/', `${'a'.repeat(255)}/`, 'telemetry/eu-1/', 'a.b/..c/', 'tenant=x+y&z/'])(
  'this is a prefix: %s',
  (S3_PREFIX) => {
    expect(parse({ S3_PREFIX }).S3_PREFIX).toBe(S3_PREFIX)
  },
)
