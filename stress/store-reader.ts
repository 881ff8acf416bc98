import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { Client } from 'minio'
import type { RunningMinio } from '../test/support/minio.ts'

/** A store as the harness sees it, past every proxy and without any code of the program. */
export interface StoreReader {
  /** What the catalog must say for the bucket. */
  readonly bucket: string
  /** The keys that are there right now. */
  list(): Promise<ReadonlySet<string>>
  get(key: string): Promise<Buffer>
}

/** A client that goes past every proxy. */
export function clientOf({ endpoint, accessKey, secretKey }: RunningMinio): Client {
  return new Client({
    endPoint: endpoint.hostname,
    port: Number(endpoint.port),
    useSSL: false,
    accessKey,
    secretKey,
  })
}

export function bucketReader(minio: RunningMinio, bucket: string): StoreReader {
  const client = clientOf(minio)
  return {
    bucket,
    async list() {
      const keys = new Set<string>()
      if (!(await client.bucketExists(bucket))) return keys
      for await (const item of client.listObjectsV2(bucket, '', true)) {
        const { name } = item as { name?: string }
        if (name !== undefined) keys.add(name)
      }
      return keys
    },
    async get(key) {
      const chunks: Buffer[] = []
      for await (const chunk of await client.getObject(bucket, key)) chunks.push(chunk as Buffer)
      return Buffer.concat(chunks)
    },
  }
}

/** The folder store below a `DATA_DIR`. A temporary file that was left there is a key like any other. */
export function folderReader(dataDir: string): StoreReader {
  const bucket = path.join(dataDir, 'objects')
  return {
    bucket,
    async list() {
      const entries = await readdir(bucket, { recursive: true, withFileTypes: true })
      const files = entries.filter((entry) => entry.isFile())
      return new Set(files.map(({ parentPath, name }) => path.relative(bucket, path.join(parentPath, name))))
    },
    get: (key) => readFile(path.join(bucket, key)),
  }
}
