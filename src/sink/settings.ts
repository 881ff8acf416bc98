import { type Parsed, type SettingsRule, secret, text, url } from '../foundation/setting.ts'
import type { MinioSettings } from './minio-store.ts'

/** Where objects go. Without `S3_ENDPOINT` they go to a folder. */
export const sinkSettings = {
  S3_ENDPOINT: url({
    schemes: ['http', 'https'],
    about: 'The S3 server (MinIO, S3 or another) that objects are put into.',
    whenUnset: '`DATA_DIR/objects`, a folder',
  }),
  S3_BUCKET: text({
    default: 'telemetry',
    // Amazon S3, "General purpose bucket naming rules".
    pattern: /^(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/,
    rule: '3 to 63 small letters, digits, dots and hyphens that begin and end with a letter or digit',
    about: 'The bucket that objects are put into; it is created if it is absent.',
  }),
  S3_REGION: text({
    default: 'us-east-1',
    pattern: /^[A-Za-z0-9-]{1,64}$/,
    rule: 'letters, digits and hyphens',
    about: 'The region of the bucket, which requests are signed for.',
  }),
  S3_ACCESS_KEY: secret({
    aliases: ['AWS_ACCESS_KEY_ID'],
    about:
      'The access key id; it needs to get, put, list and delete objects and to create the bucket if it is absent.',
    whenUnset: 'an error if `S3_ENDPOINT` is set',
  }),
  S3_SECRET_KEY: secret({
    aliases: ['AWS_SECRET_ACCESS_KEY'],
    about: 'The secret that belongs to the access key id.',
    whenUnset: 'an error if `S3_ENDPOINT` is set',
  }),
  S3_PREFIX: text({
    default: '',
    pattern: /^(?!.*(?:^|\/)\.{0,2}\/)(?!.*[^/]{256})[\x21-\x5b\x5d-\x7e]{1,511}\/$/,
    rule: 'printable ASCII that ends with "/", without a blank, a backslash, an empty, "." or ".." step, or one of over 255 characters',
    about: 'What the name of every object begins with, in a bucket that others use too.',
  }),
}

type SinkSettings = typeof sinkSettings

export const sinkRules: readonly SettingsRule<SinkSettings>[] = [
  {
    names: ['S3_ENDPOINT'],
    rule: 'S3_ENDPOINT must be a scheme, a host and perhaps a port, without a path, a query or credentials',
    holds: ({ S3_ENDPOINT }) => {
      if (S3_ENDPOINT === undefined) return true
      const { pathname, search, hash, username, password } = new URL(S3_ENDPOINT)
      return pathname === '/' && search + hash + username + password === ''
    },
  },
  {
    names: ['S3_ENDPOINT', 'S3_ACCESS_KEY', 'S3_SECRET_KEY'],
    rule: 'with S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY must be set too',
    holds: ({ S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY }) =>
      S3_ENDPOINT === undefined || (S3_ACCESS_KEY !== undefined && S3_SECRET_KEY !== undefined),
  },
]

/** What `openMinioStore` needs; undefined when objects go to a folder. */
export function minioSettings(values: Parsed<SinkSettings>): MinioSettings | undefined {
  const { S3_ENDPOINT, S3_BUCKET, S3_REGION, S3_ACCESS_KEY, S3_SECRET_KEY } = values
  if (S3_ENDPOINT === undefined || S3_ACCESS_KEY === undefined || S3_SECRET_KEY === undefined)
    return undefined
  return {
    endpoint: new URL(S3_ENDPOINT),
    bucket: S3_BUCKET,
    region: S3_REGION,
    accessKey: S3_ACCESS_KEY,
    secretKey: S3_SECRET_KEY,
  }
}
