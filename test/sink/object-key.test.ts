import { expect, test } from 'vitest'
import { uuidV7Milliseconds } from '../../src/foundation/uuid-time.ts'
import { checksumOf, objectKey, parseObjectKey, sha256Of } from '../../src/sink/object-key.ts'

/** 2026-03-04T23:59:59.999Z. */
const batchId = '019cbb4b-4bff-7abc-8def-0123456789ab'
const name = { prefix: '', signal: 'traces', tenant: 'default', encoding: 'gzip', batchId } as const
const traceKey = `traces/tenant=default/year=2026/month=03/day=04/hour=23/traces_${batchId}.binpb.gz`

test('the time of a batch is in its id', () => {
  expect(new Date(uuidV7Milliseconds(batchId)).toISOString()).toBe('2026-03-04T23:59:59.999Z')
  for (const wrong of ['', batchId.toUpperCase(), batchId.replace('-7', '-4'), `${batchId}0`]) {
    expect(() => uuidV7Milliseconds(wrong)).toThrow('is not a UUIDv7')
  }
})

test('a key has its prefix, signal, tenant, the UTC hour of its batch, and the encoding', () => {
  expect(objectKey(name)).toBe(traceKey)
  expect(
    objectKey({ ...name, prefix: 'edge/eu/', signal: 'logs', tenant: 'A_b-9', encoding: 'identity' }),
  ).toBe(`edge/eu/logs/tenant=A_b-9/year=2026/month=03/day=04/hour=23/logs_${batchId}.binpb`)
  expect(objectKey({ ...name, signal: 'profiles', queueId: 9_223_372_036_854_775_807n })).toBe(
    `profiles/tenant=default/year=2026/month=03/day=04/hour=23/profiles_${batchId}_9223372036854775807.binpb.gz`,
  )
})

test('a tenant that would change the path, and a queue id in the wrong place, are refused', () => {
  for (const tenant of ['', 'a/b', '..', 'é', 'a=b', 'a b', 'a'.repeat(65)]) {
    expect(() => objectKey({ ...name, tenant })).toThrow('is not a tenant')
  }
  expect(() => objectKey({ ...name, queueId: 1n })).toThrow('queue id')
  expect(() => objectKey({ ...name, signal: 'profiles' })).toThrow('queue id')
})

test('a key of ours is parsed into what it was made of', () => {
  expect(parseObjectKey(traceKey)).toEqual({ signal: 'traces', tenant: 'default', encoding: 'gzip', batchId })
  const profile = { ...name, signal: 'profiles', encoding: 'identity', queueId: 12n, prefix: 'p+q/' } as const
  const { prefix, ...parsed } = profile
  expect(parseObjectKey(objectKey(profile), prefix)).toEqual(parsed)
})

test.each([
  ['another prefix', `x/${traceKey}`],
  ['another hour than its batch', traceKey.replace('hour=23', 'hour=22')],
  ['another signal in its name', traceKey.replace('/traces_', '/logs_')],
  ['a tenant that nobody can have', traceKey.replace('default', 'a&b')],
  ['a tenant from a listing that was not decoded', traceKey.replace('default', 'a%2Db')],
  ['a batch id that is no UUIDv7', traceKey.replace('-7abc-', '-4abc-')],
  ['an upper-case batch id', traceKey.replace('abc', 'ABC')],
  ['a queue id on traces', traceKey.replace('.binpb', '_7.binpb')],
  ['profiles without a queue id', traceKey.replaceAll('traces', 'profiles')],
  [
    'a queue id with a zero before it',
    traceKey.replaceAll('traces', 'profiles').replace('.binpb', '_07.binpb'),
  ],
  ['something after it', `${traceKey}.bak`],
  ['a line end after it', `${traceKey}\n`],
  ['nothing', ''],
  ['only a number', '31'],
])('a key with %s is not ours', (_, key) => {
  expect(parseObjectKey(key)).toBeUndefined()
})

test('a checksum is the SHA-256 of the bytes', () => {
  const empty = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
  expect(checksumOf(Buffer.alloc(0))).toBe(empty)
  expect(sha256Of(empty)).toBe(empty.slice(7))
  expect(() => sha256Of('md5:abc')).toThrow('is not a checksum')
})
