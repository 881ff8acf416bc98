import { once } from 'node:events'
import { copyFile, mkdtemp, readFile } from 'node:fs/promises'
import http from 'node:http'
import https from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import grpc from '@grpc/grpc-js'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { type Issued, TestAuthority } from '../ingress/certificates.ts'
import { oneSpan } from '../ingress/serve.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { type RunningSluice, startSluice } from './sluice.ts'

const method = '/opentelemetry.proto.collector.trace.v1.TraceService/Export'
const headers = { 'content-type': 'application/x-protobuf' }

let database: TestDatabase
let sql: Sql
let folder: string
let authority: TestAuthority
let first: Issued
let second: Issued
let client: Issued
let sluice: RunningSluice

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
  folder = await mkdtemp(join(tmpdir(), 'sluice-doors-'))
  authority = await TestAuthority.open('ours')
  first = await authority.issue('first')
  second = await authority.issue('second')
  client = await authority.issue('client')
  await install(first)
  sluice = await startSluice({
    DATABASE_URL: database.databaseUrl,
    DATA_DIR: join(folder, 'data'),
    TLS_CERT_FILE: join(folder, 'tls.crt'),
    TLS_KEY_FILE: join(folder, 'tls.key'),
    TLS_CLIENT_CA_FILE: authority.certFile,
    HTTP_SOCKET: join(folder, 'otlp.sock'),
  })
})
afterAll(async () => {
  expect(await sluice.process.terminate()).toBe(0)
  expect(sluice.process.strayLines).toEqual([])
  await closePool(sql, 1000)
  await database.drop()
})

async function install(issued: Issued): Promise<void> {
  await copyFile(issued.certFile, join(folder, 'tls.crt'))
  await copyFile(issued.keyFile, join(folder, 'tls.key'))
}

async function clientTls() {
  const [ca, cert, key] = await Promise.all(
    [authority.certFile, client.certFile, client.keyFile].map((file) => readFile(file)),
  )
  return { ca, cert, key } as { ca: Buffer; cert: Buffer; key: Buffer }
}

/** Answers the status of an export over HTTP. */
async function answered(request: http.ClientRequest): Promise<number> {
  request.end(oneSpan)
  const [answer] = (await once(request, 'response')) as [http.IncomingMessage]
  answer.resume()
  await once(answer, 'end')
  return answer.statusCode ?? 0
}

async function overGrpc(credentials: grpc.ChannelCredentials): Promise<number> {
  const channel = new grpc.Client(sluice.grpcTarget.replace('127.0.0.1', 'localhost'), credentials)
  const raw = (bytes: Buffer) => bytes
  const { promise, resolve } = Promise.withResolvers<number>()
  const deadline = Date.now() + 10_000
  channel.makeUnaryRequest(method, raw, raw, oneSpan, new grpc.Metadata(), { deadline }, (error) =>
    resolve(error?.code ?? grpc.status.OK),
  )
  const code = await promise
  channel.close()
  return code
}

/** The name of the certificate that the port shows. */
async function shown(): Promise<string> {
  const port = Number(new URL(sluice.url).port)
  const socket = tls.connect({ port, host: '127.0.0.1', servername: 'localhost', ...(await clientTls()) })
  await once(socket, 'secureConnect')
  const { CN } = socket.getPeerCertificate().subject
  socket.destroy()
  return String(CN)
}

test('an export comes in over HTTPS, gRPC with TLS and a Unix socket, and each is stored once', async () => {
  const own = await clientTls()
  const { port } = new URL(sluice.url)
  const path = '/v1/traces'
  const options = { host: 'localhost', port, path, method: 'POST', headers, ...own }
  expect([
    await answered(https.request(options)),
    await overGrpc(grpc.credentials.createSsl(own.ca, own.key, own.cert)),
    await answered(http.request({ socketPath: join(folder, 'otlp.sock'), path, method: 'POST', headers })),
  ]).toEqual([200, grpc.status.OK, 200])
  const stored = async () => (await sql`SELECT coalesce(sum(requests), 0)::int AS n FROM stored_object`)[0]?.n
  await expect.poll(stored, { timeout: 20_000 }).toBe(3)
})

test('a client without a certificate is refused on both ports, and the log says why', async () => {
  const { ca } = await clientTls()
  const { port } = new URL(sluice.url)
  const bare = answered(
    https.request({ host: 'localhost', port, path: '/v1/traces', method: 'POST', headers, ca }),
  )
  await expect(bare).rejects.toThrow()
  expect(await overGrpc(grpc.credentials.createSsl(ca))).toBe(grpc.status.UNAVAILABLE)
  const failed = () => sluice.process.log.filter(({ event }) => event === 'tls_handshake_failed')
  await expect
    .poll(() => new Set(failed().map(({ reason }) => reason)))
    .toEqual(new Set(['ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE']))
})

test('SIGHUP takes up a new certificate, and an open connection goes on', async () => {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
  const { port } = new URL(sluice.url)
  const options = {
    host: 'localhost',
    port,
    path: '/v1/traces',
    method: 'POST',
    headers,
    agent,
    ...(await clientTls()),
  }
  const before = https.request(options)
  expect(await answered(before)).toBe(200)
  expect(await shown()).toBe('first')
  await install(second)
  process.kill(sluice.process.pid, 'SIGHUP')
  await expect.poll(shown).toBe('second')
  const after = https.request(options)
  expect([await answered(after), after.reusedSocket]).toEqual([200, true])
  agent.destroy()
})

test('SIGHUP ends no worker that has the settings of TLS too', async () => {
  const worker = await startSluice(
    {
      DATABASE_URL: database.databaseUrl,
      DATA_DIR: join(folder, 'data'),
      TLS_CERT_FILE: join(folder, 'tls.crt'),
      TLS_KEY_FILE: join(folder, 'tls.key'),
    },
    ['--role', 'worker'],
  )
  process.kill(worker.process.pid, 'SIGHUP')
  await expect.poll(() => worker.process.countEvents('signal')).toBe(1)
  expect((await fetch(`${worker.adminUrl}/health/ready`)).status).toBe(200)
  expect(await worker.process.terminate()).toBe(0)
})
