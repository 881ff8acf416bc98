import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Client } from 'minio'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { Failure, FailureKind } from '../../src/foundation/failure.ts'
import { type MinioSettings, openMinioStore } from '../../src/sink/minio-store.ts'
import { checksumOf } from '../../src/sink/object-key.ts'
import type { ObjectStore } from '../../src/sink/object-store.ts'
import { type RunningMinio, startMinio } from '../support/minio.ts'
import { all, failureOf } from './conformance.ts'

const run = promisify(execFile)
const bucket = 'classes'
const body = Buffer.alloc(200_000, 'x')
const putTo = (store: ObjectStore, key = 'a/b', bytes = body) => store.put(key, bytes, checksumOf(bytes))

let minio: RunningMinio
const opened: ObjectStore[] = []
beforeAll(async () => {
  minio = await startMinio()
  await open().prepare()
})
afterAll(() => minio?.stop())
afterEach(async () => {
  await Promise.all(opened.splice(0).map((store) => store.close()))
})

function open(settings: Partial<MinioSettings> = {}): ObjectStore {
  const store = openMinioStore({ ...minio, bucket, region: undefined, ...settings })
  opened.push(store)
  return store
}

/** Passes requests on to the real server with the headers of puts of objects changed: what a wrong client would send. */
async function changingProxy(change: (headers: http.IncomingHttpHeaders) => void) {
  const { hostname, port } = minio.endpoint
  const server = http.createServer((request, response) => {
    const headers = { ...request.headers }
    if (request.method === 'PUT' && request.url?.split('/').length === 4) change(headers)
    const passed = http.request(
      { hostname, port, method: request.method, path: request.url, headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 0, answer.headers)
        answer.pipe(response)
      },
    )
    // The real server hangs up on what it refuses unread.
    passed.on('error', () => response.destroy())
    request.pipe(passed)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    endpoint: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

async function expectClass(asked: Promise<unknown>, kind: FailureKind, code: string): Promise<void> {
  const failure = await failureOf(asked)
  expect({ kind: failure.kind, code: failure.code }).toEqual({ kind, code })
  expect(typeof failure.fix).toBe(kind === 'configuration' ? 'string' : 'undefined')
}

test('a real MinIO: a key that is not known, or the wrong secret, is a fault of the configuration', async () => {
  // A bucket that is known to be there is what a running worker has; the answer to a HEAD has no code.
  for (const [changes, code] of [
    [{ accessKey: 'nobody' }, 'InvalidAccessKeyId'],
    [{ secretKey: 'wrong-secret' }, 'SignatureDoesNotMatch'],
  ] as const) {
    const store = open(changes)
    const failure = await failureOf(store.prepare())
    expect({ kind: failure.kind, fix: typeof failure.fix }).toEqual({ kind: 'configuration', fix: 'string' })
    await expectClass(all(store.list('')), 'configuration', code)
  }
})

test('a real MinIO: a request that nobody is allowed is a fault of the configuration, AccessDenied', async () => {
  await using proxy = await changingProxy((headers) => {
    delete headers.authorization
  })
  await expectClass(putTo(open({ endpoint: proxy.endpoint })), 'configuration', 'AccessDenied')
})

test('a real MinIO: an object over its limit is a fault of the data, EntityTooLarge', async () => {
  await using proxy = await changingProxy((headers) => {
    headers['content-length'] = String(6 * 2 ** 40)
  })
  await expectClass(putTo(open({ endpoint: proxy.endpoint })), 'data', 'EntityTooLarge')
})

test('a real MinIO: a name that is too long is a fault of the configuration', async () => {
  const failure = await failureOf(putTo(open(), 'a/'.repeat(450) + 'b'.repeat(200)))
  expect(failure).toMatchObject({ kind: 'configuration' })
})

test('a real MinIO: a bucket over its quota is an outage, XMinioAdminBucketQuotaExceeded, and over with the quota', async () => {
  const store = open({ bucket: 'limited' })
  await store.prepare()
  const client = new Client({
    endPoint: minio.endpoint.hostname,
    port: Number(minio.endpoint.port),
    useSSL: false,
    accessKey: minio.accessKey,
    secretKey: minio.secretKey,
    region: 'us-east-1',
  })
  const limit = (quota: number) =>
    client.makeRequestAsyncOmit(
      {
        method: 'PUT',
        bucketName: 'minio',
        objectName: 'admin/v3/set-bucket-quota',
        query: 'bucket=limited',
      },
      JSON.stringify({ quota, quotatype: 'hard' }),
    )
  await limit(1000)
  await expectClass(putTo(store), 'outage', 'XMinioAdminBucketQuotaExceeded')
  await limit(0)
  await putTo(store)
})

test('a real MinIO: a full disk is an outage, XMinioStorageFull', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'sluice-full-store-'))
  await run('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', dataDir]).catch((error: unknown) => {
    throw new Error(
      'This test mounts a tmpfs of 24 MiB and may not: run it as root in a container that may.',
      {
        cause: error,
      },
    )
  })
  let full: RunningMinio | undefined
  try {
    full = await startMinio({ dataDir })
    const store = open({ ...full, bucket: 'full' })
    await store.prepare()
    const codes = new Set<string | undefined>()
    // It looks at the free space once a second; until it knows, a put breaks off in the middle.
    const untilMs = performance.now() + 15_000
    for (let number = 0; !codes.has('XMinioStorageFull') && performance.now() < untilMs; number++) {
      await putTo(store, `a/${number}`, Buffer.alloc(2 ** 20, 'x')).catch(async (failure: Failure) => {
        expect(failure.kind).toBe('outage')
        codes.add(failure.code)
        await wait(100)
      })
    }
    expect([...codes]).toContain('XMinioStorageFull')
  } finally {
    await full?.stop()
    await run('umount', [dataDir]).catch(() => undefined)
    await rm(dataDir, { recursive: true, force: true })
  }
})
