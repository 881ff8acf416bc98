import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import tls from 'node:tls'
import { promisify } from 'node:util'
import { Client } from 'minio'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { type MinioSettings, openMinioStore } from '../../src/sink/minio-store.ts'
import { checksumOf, parseObjectKey } from '../../src/sink/object-key.ts'
import type { ObjectStore } from '../../src/sink/object-store.ts'
import { freePort } from '../support/free-port.ts'
import { type RunningMinio, startMinio } from '../support/minio.ts'
import { all, failureOf } from './conformance.ts'
import { losingProxy } from './fake-s3.ts'

let minio: RunningMinio
let buckets = 0
const opened: ObjectStore[] = []

beforeAll(async () => {
  minio = await startMinio()
})
afterAll(() => minio?.stop())
afterEach(async () => {
  vi.useRealTimers()
  await Promise.all(opened.splice(0).map((store) => store.close()))
})

function open(settings: Partial<MinioSettings> = {}): ObjectStore {
  buckets += 1
  const store = openMinioStore({ ...minio, bucket: `outages-${buckets}`, region: undefined, ...settings })
  opened.push(store)
  return store
}

const body = randomBytes(200_000)
const putTo = (store: ObjectStore, key = 'a/b', bytes = body) => store.put(key, bytes, checksumOf(bytes))

function clientOf({ endpoint, accessKey, secretKey }: RunningMinio): Client {
  const { hostname: endPoint, port } = endpoint
  return new Client({ endPoint, port: Number(port), useSSL: false, accessKey, secretKey })
}

test('H7: a put whose answer was lost succeeds when it is tried again, and the object is there once', async () => {
  await using proxy = await losingProxy(minio.endpoint, 'PUT /lost-answer/a', 1)
  const store = open({ endpoint: proxy.endpoint, bucket: 'lost-answer' })
  expect(await failureOf(putTo(store))).toMatchObject({ kind: 'outage', code: 'ECONNRESET' })
  expect((await all(store.list(''))).map(({ key, bytes }) => [key, bytes])).toEqual([['a/b', 200_000]])
  await putTo(store)
  expect(await store.get('a/b')).toEqual(body)
})

test('H7: a put whose answer was lost and whose key then holds other bytes is a data failure', async () => {
  await using proxy = await losingProxy(minio.endpoint, 'PUT /lost-other/a', 1)
  const store = open({ endpoint: proxy.endpoint, bucket: 'lost-other' })
  expect(await failureOf(putTo(store))).toMatchObject({ kind: 'outage' })
  expect(await failureOf(putTo(store, 'a/b', randomBytes(200_000)))).toMatchObject({
    kind: 'data',
    code: 'PreconditionFailed',
  })
  expect(await store.get('a/b')).toEqual(body)
})

test('H2: a server that is frozen is an outage when the deadline passes, and takes the same put afterwards', async () => {
  const frozen = await startMinio()
  try {
    const store = open({ ...frozen, putTimeoutMs: 300 })
    await store.prepare()
    process.kill(frozen.pid, 'SIGSTOP')
    const failures = await Promise.all([0, 1, 2].map((number) => failureOf(putTo(store, `a/${number}`))))
    expect(failures.map(({ kind, code }) => [kind, code])).toEqual(Array(3).fill(['outage', 'ETIMEDOUT']))
    process.kill(frozen.pid, 'SIGCONT')
    await expect
      .poll(() => putTo(store, 'a/0').then(() => 'stored', String), { timeout: 10_000 })
      .toBe('stored')
    expect(await store.get('a/0')).toEqual(body)
  } finally {
    await frozen.stop()
  }
})

test('a server that is killed and comes back keeps what it has and takes more, without a new store', async () => {
  const port = await freePort()
  const dataDir = await mkdtemp(path.join(os.tmpdir(), 'sluice-killed-'))
  let server = await startMinio({ port, dataDir })
  try {
    const store = open(server)
    await putTo(store, 'before')
    await server.stop()
    expect(await failureOf(putTo(store, 'after'))).toMatchObject({ kind: 'outage' })
    expect(await failureOf(store.get('before'))).toMatchObject({ kind: 'outage', code: 'ECONNREFUSED' })
    server = await startMinio({ port, dataDir })
    await putTo(store, 'after')
    expect(await store.get('before')).toEqual(body)
    expect(await store.get('after')).toEqual(body)
  } finally {
    await server.stop()
    await rm(dataDir, { recursive: true })
  }
})

test('a bucket that was deleted is an outage once, and is made again by the next put', async () => {
  const store = open({ bucket: 'deleted' })
  await store.prepare()
  await clientOf(minio).removeBucket('deleted')
  expect(await failureOf(putTo(store))).toMatchObject({ kind: 'outage', code: 'NoSuchBucket' })
  expect(await failureOf(store.stat('a/b'))).toMatchObject({ kind: 'outage', code: 'NoSuchBucket' })
  await putTo(store)
  expect(await store.get('a/b')).toEqual(body)
})

test('H8: a clock that is 20 minutes behind is an outage, not the fault of the data', async () => {
  const store = open()
  await store.prepare()
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() - 20 * 60_000 })
  expect(await failureOf(putTo(store))).toMatchObject({ kind: 'outage', code: 'RequestTimeTooSkewed' })
  vi.useRealTimers()
  await putTo(store)
})

test('H8: so it is where nobody has looked for the bucket yet', async () => {
  const store = open({ bucket: 'not-seen' })
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() - 20 * 60_000 })
  expect(await failureOf(store.prepare())).toMatchObject({ kind: 'outage', code: 'RequestTimeTooSkewed' })
  vi.useRealTimers()
  await store.prepare()
})

test.each<[string, Partial<MinioSettings>, string]>([
  ['a wrong secret', { secretKey: 'wrong-secret' }, 'SignatureDoesNotMatch'],
  ['an access key that nobody knows', { accessKey: 'nobody' }, 'InvalidAccessKeyId'],
])('%s is a matter of configuration, and the message does not hold the secret', async (_, wrong, code) => {
  const store = open(wrong)
  const failure = await failureOf(store.prepare())
  expect(failure).toMatchObject({ kind: 'configuration', code })
  expect(failure.message).not.toMatch(/secret/)
})

test('a server that was told a region refuses another one with a sentence, and takes its own', async () => {
  const regional = await startMinio({ env: { MINIO_SITE_REGION: 'eu-north-7' } })
  try {
    const failure = await failureOf(open(regional).prepare())
    expect(failure.kind).toBe('configuration')
    const store = open({ ...regional, region: 'eu-north-7' })
    await putTo(store)
    expect(await store.get('a/b')).toEqual(body)
  } finally {
    await regional.stop()
  }
})

test('a bucket with versions keeps one version of a key that was put twice', async () => {
  const store = open({ bucket: 'versions' })
  await store.prepare()
  await clientOf(minio).setBucketVersioning('versions', { Status: 'Enabled' })
  await putTo(store)
  await putTo(store)
  const versions: unknown[] = await all(
    clientOf(minio).listObjects('versions', '', true, { IncludeVersion: true }),
  )
  expect(versions).toHaveLength(1)
})

test('H4: a name that is nothing but a number is listed as another, and none such is taken for ours', async () => {
  const store = open()
  for (const key of ['0x1f', '00012']) await putTo(store, key)
  const listed = (await all(store.list(''))).map(({ key }) => key)
  expect(listed.toSorted()).toEqual(['12', '31'])
  expect(listed.map((key) => parseObjectKey(key))).toEqual([undefined, undefined])
})

test('under https the server must prove who it is, and bodies are signed all the same', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'sluice-tls-'))
  const certificates = path.join(folder, 'certificates')
  await mkdir(certificates)
  const certificate = path.join(certificates, 'public.crt')
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1']
  const files = ['-keyout', path.join(certificates, 'private.key'), '-out', certificate]
  await promisify(execFile)('openssl', [
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '2',
    ...subject,
    ...files,
  ])
  const trusted = tls.getCACertificates('default')
  const secured = await startMinio({ certificates })
  try {
    expect(secured.endpoint.protocol).toBe('https:')
    expect(await failureOf(open(secured).prepare())).toMatchObject({ kind: 'configuration' })
    tls.setDefaultCACertificates([...trusted, await readFile(certificate, 'utf8')])
    const store = open(secured)
    await putTo(store)
    expect(await store.get('a/b')).toEqual(body)
    const wrong = checksumOf(Buffer.from('other bytes'))
    expect(await failureOf(store.put('a/c', body, wrong))).toMatchObject({
      code: 'XAmzContentSHA256Mismatch',
    })
    expect(await store.stat('a/c')).toBeUndefined()
  } finally {
    tls.setDefaultCACertificates(trusted)
    await secured.stop()
    await rm(folder, { recursive: true })
  }
})
