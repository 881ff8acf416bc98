import path from 'node:path'
import { Client } from 'minio'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openMinioStore } from '../../src/sink/minio-store.ts'
import { objectsOfBatch } from '../../src/sink/object.ts'
import { type RunningMinio, startMinio } from '../support/minio.ts'
import { described, read } from './programs.ts'
import { traceRows } from './requests.ts'

let minio: RunningMinio

beforeAll(async () => {
  minio = await startMinio()
})
afterAll(() => minio?.stop())

test('H10: a .gz object comes over HTTP as it is stored: neither Go nor fetch unpacks it on the way', async () => {
  const [object] = objectsOfBatch('019cbb4b-4b3f-7abc-8def-0123456789ab', traceRows('gzip'))
  if (object === undefined) throw new Error('no object')
  const store = openMinioStore({ ...minio, bucket: 'public', region: undefined })
  try {
    await store.put(object.key, object.body, object.checksum)
  } finally {
    await store.close()
  }
  const { endpoint, accessKey, secretKey } = minio
  const connection = { endPoint: endpoint.hostname, port: Number(endpoint.port), useSSL: false }
  const resource = ['arn:aws:s3:::public/*']
  await new Client({ ...connection, accessKey, secretKey }).setBucketPolicy(
    'public',
    JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Allow', Principal: { AWS: ['*'] }, Action: ['s3:GetObject'], Resource: resource },
      ],
    }),
  )
  const url = new URL(`/public/${object.key}`, endpoint).href
  const answer = await fetch(url)
  expect(Object.fromEntries(answer.headers)).toMatchObject({ 'content-type': 'application/gzip' })
  expect(answer.headers.get('content-encoding')).toBeNull()
  const fetched = Buffer.from(await answer.arrayBuffer())
  expect(fetched.subarray(0, 2).toString('hex')).toBe('1f8b')
  expect(fetched).toEqual(object.body)
  const words = ['run', path.join(import.meta.dirname, 'gunzip.go'), 'url', url]
  expect((await read('go', words)).toString()).toBe(described(object.body))
})
