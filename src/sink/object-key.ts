import { hash } from 'node:crypto'
import { Failure, invariant } from '../foundation/failure.ts'
import { uuidV7Milliseconds } from '../foundation/uuid-time.ts'
import { type Encoding, type Signal, signals } from '../otlp/signal.ts'

/** What an object's name is made of. */
export interface ObjectName {
  signal: Signal
  tenant: string
  encoding: Encoding
  /** A UUIDv7 in lower case; its time gives the hour in the key. */
  batchId: string
  /** Given for profiles only, whose requests are stored one by one. */
  queueId?: bigint
}

const uuidV7 = '[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}'
const tenantPattern = /^[A-Za-z0-9_-]{1,64}$/
const keyPattern = new RegExp(
  `^(?<signal>${Object.keys(signals).join('|')})/tenant=(?<tenant>[A-Za-z0-9_-]{1,64})/` +
    String.raw`year=\d{4}/month=\d{2}/day=\d{2}/hour=\d{2}/` +
    String.raw`\k<signal>_(?<batchId>${uuidV7})(?:_(?<queueId>[1-9]\d{0,18}))?\.binpb(?<gzip>\.gz)?$`,
)

/** Amazon S3, "Creating object key names": at most 1,024 bytes of UTF-8. */
const keyBytesMax = 1024

/**
 * The key of an object, from its batch alone, so that every try and every worker comes to the same one. The layout
 * is the one that the OpenTelemetry Collector's S3 receiver replays; the hour is UTC.
 */
export function objectKey(name: ObjectName & { prefix: string }): string {
  const { prefix, signal, tenant, encoding, batchId, queueId } = name
  invariant(tenantPattern.test(tenant), `"${tenant}" is not a tenant`)
  invariant(
    (signal === 'profiles') === (queueId !== undefined),
    'profiles, and only they, have a queue id in the key',
  )
  const time = new Date(uuidV7Milliseconds(batchId)).toISOString()
  const [year, month, day, hour] = [
    time.slice(0, -20),
    time.slice(-19, -17),
    time.slice(-16, -14),
    time.slice(-13, -11),
  ]
  const row = queueId === undefined ? '' : `_${queueId}`
  const end = encoding === 'gzip' ? '.binpb.gz' : '.binpb'
  return (
    `${prefix}${signal}/tenant=${tenant}/year=${year}/month=${month}/day=${day}/hour=${hour}/` +
    `${signal}_${batchId}${row}${end}`
  )
}

/**
 * What a key says about its object; undefined unless it is exactly a key that `objectKey` makes with this prefix.
 * Only such names may ever be deleted: what a listing returns is not always the name that was written.
 */
export function parseObjectKey(key: string, prefix = ''): ObjectName | undefined {
  if (!key.startsWith(prefix)) return undefined
  const found = keyPattern.exec(key.slice(prefix.length))?.groups
  if (found === undefined) return undefined
  const { signal, tenant, batchId, queueId, gzip } = found as Partial<Record<string, string>>
  if (tenant === undefined || batchId === undefined) return undefined
  if ((signal === 'profiles') !== (queueId !== undefined)) return undefined
  const name: ObjectName = {
    signal: signal as Signal,
    tenant,
    encoding: gzip === undefined ? 'identity' : 'gzip',
    batchId,
    ...(queueId === undefined ? {} : { queueId: BigInt(queueId) }),
  }
  return objectKey({ ...name, prefix }) === key ? name : undefined
}

/** `sha256:` and 64 hex digits. 0.7 ms of CPU a MiB, so it is computed once an object and handed on. */
export function checksumOf(body: Buffer): string {
  return `sha256:${hash('sha256', body, 'hex')}`
}

/** The 64 hex digits of a checksum. */
export function sha256Of(checksum: string): string {
  invariant(/^sha256:[0-9a-f]{64}$/.test(checksum), `"${checksum}" is not a checksum`)
  return checksum.slice('sha256:'.length)
}

/**
 * Throws a `configuration` failure for a key that not every store can keep: an empty, `.` or `..` step between slashes (MinIO
 * refuses them, in a folder they would lead out of it), control characters, text that is not Unicode, too long.
 */
export function assertStorableKey(key: string): void {
  const refuse = (code: string, why: string) => {
    throw new Failure('configuration', `the object name ${JSON.stringify(key.slice(0, 200))} ${why}`, {
      code,
    })
  }
  if (Buffer.byteLength(key) > keyBytesMax) refuse('KeyTooLongError', `has over ${keyBytesMax} bytes`)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\u0000-\u001f\u007f\\]/.test(key))
    refuse('InvalidObjectName', 'has a control character or a backslash')
  if (!key.isWellFormed()) refuse('InvalidObjectName', 'is not Unicode')
  if (key.split('/').some((step) => step === '' || step === '.' || step === '..')) {
    refuse('InvalidObjectName', 'has an empty, "." or ".." step')
  }
}
