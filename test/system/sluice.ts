import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Client, Client as MinioClient } from 'minio'
import { SluiceProcess } from '../../stress/sluice-process.ts'
import { freePort } from '../support/free-port.ts'
import type { RunningMinio } from '../support/minio.ts'

/** The program as a process of its own, ready for requests. */
export interface RunningSluice {
  process: SluiceProcess
  /** Where OTLP is taken; undefined for a worker. */
  url: string
  /** `127.0.0.1:port` of OTLP/gRPC. */
  grpcTarget: string
  adminUrl: string
}

/** Starts `sluice serve` with these settings on free ports, and waits until it is ready. */
export async function startSluice(
  settings: Readonly<Record<string, string>>,
  args: readonly string[] = [],
): Promise<RunningSluice> {
  const sluice = await launchSluice(settings, args)
  await sluice.process.ready()
  return sluice
}

/** The same without waiting. */
export async function launchSluice(
  settings: Readonly<Record<string, string>>,
  args: readonly string[] = [],
): Promise<RunningSluice> {
  const [httpPort, grpcPort, adminPort] = [await freePort(), await freePort(), await freePort()]
  const process = new SluiceProcess({
    name: 'sluice',
    args: ['serve', ...args],
    environment: {
      HTTP_PORT: String(httpPort),
      GRPC_PORT: String(grpcPort),
      ADMIN_PORT: String(adminPort),
      ...settings,
    },
    adminPort,
  })
  return {
    process,
    url: `http://127.0.0.1:${httpPort}`,
    grpcTarget: `127.0.0.1:${grpcPort}`,
    adminUrl: `http://127.0.0.1:${adminPort}`,
  }
}

/** Settings that point at a MinIO server. */
export function storeSettings(minio: RunningMinio, bucket: string): Record<string, string> {
  return {
    S3_ENDPOINT: minio.endpoint.origin,
    S3_BUCKET: bucket,
    S3_ACCESS_KEY: minio.accessKey,
    S3_SECRET_KEY: minio.secretKey,
  }
}

export function minioClient(minio: RunningMinio): Client {
  return new MinioClient({
    endPoint: minio.endpoint.hostname,
    port: Number(minio.endpoint.port),
    useSSL: false,
    accessKey: minio.accessKey,
    secretKey: minio.secretKey,
  })
}

/** Every object of a bucket by its key. */
export async function readBucket(client: Client, bucket: string): Promise<Map<string, Buffer>> {
  const objects = new Map<string, Buffer>()
  for await (const item of client.listObjectsV2(bucket, '', true) as AsyncIterable<{ name: string }>) {
    const parts: Buffer[] = []
    for await (const part of await client.getObject(bucket, item.name)) parts.push(part as Buffer)
    objects.set(item.name, Buffer.concat(parts))
  }
  return objects
}

export interface Payload {
  file: string
  signal: 'traces' | 'metrics' | 'logs'
  contentType: string
  contentEncoding: string | null
  items: number
  traceIds?: number
  services: string[]
  minTimeUnixNano: string
  maxTimeUnixNano: string
  body: Buffer
}

const folder = join(import.meta.dirname, '../payloads')

/** The requests of real SDKs, with what is known to be in them. */
export function realPayloads(): Payload[] {
  const index = JSON.parse(readFileSync(join(folder, 'index.json'), 'utf8')) as Omit<Payload, 'body'>[]
  return index.map((payload) => ({ ...payload, body: readFileSync(join(folder, payload.file)) }))
}

/** Sends one export; answers the status. */
export async function post(
  url: string,
  {
    signal,
    contentType,
    contentEncoding,
    body,
  }: Pick<Payload, 'signal' | 'contentType' | 'contentEncoding' | 'body'>,
): Promise<number> {
  const answer = await fetch(`${url}/v1/${signal}`, {
    method: 'POST',
    headers: {
      'content-type': contentType,
      ...(contentEncoding === null ? {} : { 'content-encoding': contentEncoding }),
    },
    body: new Uint8Array(body),
  })
  await answer.arrayBuffer()
  return answer.status
}

/** One span as an export request: what most tests need. `name` finds it again. */
export function spanRequest(
  name: string,
  changes: { service?: string; traceId?: string; startTimeUnixNano?: string; endTimeUnixNano?: string } = {},
): Pick<Payload, 'signal' | 'contentType' | 'contentEncoding' | 'body'> {
  const { service = 'test', traceId = '5b8efff798038103d269b633813fc60c' } = changes
  const { startTimeUnixNano = '1544712660000000000', endTimeUnixNano = '1544712661000000000' } = changes
  const span = { traceId, spanId: 'eee19b7ec3c1b174', name, kind: 2, startTimeUnixNano, endTimeUnixNano }
  const resource = { attributes: [{ key: 'service.name', value: { stringValue: service } }] }
  const request = { resourceSpans: [{ resource, scopeSpans: [{ spans: [span] }] }] }
  return {
    signal: 'traces',
    contentType: 'application/json',
    contentEncoding: null,
    body: Buffer.from(JSON.stringify(request)),
  }
}
