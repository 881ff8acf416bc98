import { afterAll, beforeAll, describe } from 'vitest'
import { openMinioStore } from '../../src/sink/minio-store.ts'
import { type RunningMinio, startMinio } from '../support/minio.ts'
import { storeConformance } from './conformance.ts'

let minio: RunningMinio
let places = 0

beforeAll(async () => {
  minio = await startMinio()
})
afterAll(() => minio?.stop())

describe('the MinIO store', () => {
  storeConformance(async () => {
    places += 1
    const settings = { ...minio, bucket: `place-${places}`, region: undefined }
    return { store: openMinioStore(settings), again: () => openMinioStore(settings) }
  })
})
