import { afterAll, beforeAll, expect, test } from 'vitest'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { post, type RunningSluice, spanRequest, startSluice } from '../system/sluice.ts'
import { askPythonForStatus } from './python-sdk.ts'

const BODY_BYTES_MAX = 1024
const RESOURCE_EXHAUSTED = 8

let database: TestDatabase
let sluice: RunningSluice

/** The queue is full from the first request on, and nobody empties it. */
beforeAll(async () => {
  database = await cloneDatabase()
  const settings = {
    DATABASE_URL: database.databaseUrl,
    STAGING_MAX_BACKLOG: '1',
    MAX_BODY_BYTES: String(BODY_BYTES_MAX),
  }
  sluice = await startSluice(settings, ['--role', 'ingress'])
  while ((await post(sluice.url, spanRequest('before'))) !== 429);
})
afterAll(async () => {
  expect(await sluice.process.terminate()).toBe(0)
  await database.drop()
})

test('E2: a full queue is RESOURCE_EXHAUSTED with a RetryInfo, in both places where clients look', async () => {
  const refusal = await askPythonForStatus(sluice.grpcTarget, 1)
  expect(refusal).toEqual({
    code: 'RESOURCE_EXHAUSTED',
    message: 'the queue is full',
    status: {
      code: RESOURCE_EXHAUSTED,
      message: 'the queue is full',
      details: [['type.googleapis.com/google.rpc.RetryInfo', 4]],
    },
    retryInfoSeconds: 4,
  })
})

test('E2: a request over the limit is RESOURCE_EXHAUSTED without one, so that nobody sends it again', async () => {
  const refusal = await askPythonForStatus(sluice.grpcTarget, BODY_BYTES_MAX)
  expect(refusal).toEqual({
    code: 'RESOURCE_EXHAUSTED',
    message: `the body is larger than ${BODY_BYTES_MAX} bytes`,
    status: null,
    retryInfoSeconds: null,
  })
})
