import { once } from 'node:events'
import { chmod, copyFile, mkdtemp, readFile } from 'node:fs/promises'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import grpc from '@grpc/grpc-js'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { type Issued, TestAuthority } from '../ingress/certificates.ts'
import { head, oneSpan, RawConnection } from '../ingress/serve.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { launchSluice, type RunningSluice, spanRequest, startSluice } from './sluice.ts'

// Each starts up to five processes, beside other tests that do.
vi.setConfig({ testTimeout: 90_000 })

let database: TestDatabase
let sql: Sql
let folder: string
let running: RunningSluice[] = []

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
})
afterAll(async () => {
  await closePool(sql, 1000)
  await database.drop()
})
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sluice-processes-'))
  // The embedded server runs as another user when the tests run as root.
  await chmod(folder, 0o755)
})
afterEach(async () => {
  for (const { process } of running) if (!process.hasExited) await process.terminate()
  running = []
  await sql`TRUNCATE ingestion_queue`
})

/** Two processes that take OTLP, and by default no worker, so that what was staged stays in the queue. */
async function start(settings: Record<string, string> = {}, args = ['--role', 'ingress']) {
  const common = { PROCESSES: '2', DATA_DIR: join(folder, 'data'), STAGING_MAX_BACKLOG: '100000' }
  const sluice = await startSluice({ DATABASE_URL: database.databaseUrl, ...common, ...settings }, args)
  running.push(sluice)
  return sluice
}

/** The processes that take OTLP, by their numbers: those that were begun last. */
function pids({ process }: RunningSluice): Map<number, number> {
  const started = process.log.filter(({ event }) => event === 'process_started')
  return new Map(started.map((line) => [Number(line.process), Number(line.pid)]))
}

function pidOf(sluice: RunningSluice, number: number): number {
  const pid = pids(sluice).get(number)
  if (pid === undefined) throw new Error(`process ${number} was not started`)
  return pid
}

const isAlive = (pid: number) => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Sends from several connections until told to stop; by their ids, what was answered 200, and what was sent. */
function load({ url }: RunningSluice, stop: AbortSignal) {
  const [taken, sent]: [string[], string[]] = [[], []]
  const { signal, contentType, body } = spanRequest('a')
  const lane = async (lane: number) => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    for (let count = 0; !stop.aborted; count++) {
      const id = `${lane}-${count}`
      sent.push(id)
      const request = http.request(`${url}/v1/${signal}`, {
        agent,
        method: 'POST',
        headers: { 'content-type': contentType, 'x-request-id': id },
        timeout: 10_000,
      })
      request.on('timeout', () => request.destroy(new Error('no answer within 10 s')))
      request.end(body)
      const status = await once(request, 'response').then(
        async ([answer]: http.IncomingMessage[]) => {
          answer?.resume()
          if (answer && !answer.complete) await once(answer, 'end')
          return answer?.statusCode
        },
        (error: Error) => {
          if (error.message.startsWith('no answer')) throw error
        },
      )
      if (status === 200) taken.push(id)
      // Whatever broke the connection is given a moment to pass.
      else await new Promise((resolve) => setTimeout(resolve, 20))
    }
    agent.destroy()
  }
  return { taken, sent, done: Promise.all([0, 1, 2, 3, 4, 5].map(lane)) }
}

async function overGrpc(target: string): Promise<number> {
  const client = new grpc.Client(target, grpc.credentials.createInsecure())
  const raw = (bytes: Buffer) => bytes
  const { promise, resolve } = Promise.withResolvers<number>()
  const method = '/opentelemetry.proto.collector.trace.v1.TraceService/Export'
  client.makeUnaryRequest(method, raw, raw, oneSpan, (error) => resolve(error?.code ?? grpc.status.OK))
  const code = await promise
  client.close()
  return code
}

async function overSocket(socketPath: string): Promise<number | undefined> {
  const headers = { 'content-type': 'application/x-protobuf' }
  const request = http.request({ socketPath, path: '/v1/traces', method: 'POST', headers })
  request.end(oneSpan)
  const [answer] = (await once(request, 'response')) as [http.IncomingMessage]
  answer.resume()
  return answer.statusCode
}

async function stagedIds(): Promise<string[]> {
  const rows = await sql<{ request_id: string }[]>`SELECT request_id FROM ingestion_queue`
  return rows.map(({ request_id }) => request_id)
}

test('two processes take requests on one port each; every one is stored once, and /metrics has the sum', async () => {
  const sluice = await start({ HTTP_SOCKET: join(folder, 'otlp.sock') }, [])
  const port = Number(new URL(sluice.url).port)
  const broken = () => sluice.process.log.filter(({ event }) => event === 'http_malformed')
  const takenBy = () => new Set(broken().map(({ process }) => process))
  let sent = 0
  for (; takenBy().size < 2 && sent < 50; sent++) {
    const connection = new RawConnection(port)
    connection.write(head(`Content-Length: ${oneSpan.length}`)).write(oneSpan)
    await connection.until(/^HTTP\/1\.1 200 /)
    // What is no HTTP is logged, with the process that had the connection.
    connection.write('this is no HTTP\r\n\r\n')
    await connection.closed
    await expect.poll(() => broken().length).toBe(sent + 1)
  }
  expect(takenBy()).toEqual(new Set([1, 2]))
  expect(await overGrpc(sluice.grpcTarget)).toBe(grpc.status.OK)
  expect(await overSocket(join(folder, 'otlp.sock'))).toBe(200)
  const stored = async () => (await sql`SELECT coalesce(sum(requests), 0)::int AS n FROM stored_object`)[0]?.n
  await expect.poll(stored, { timeout: 20_000 }).toBe(sent + 2)
  const metrics = await sluice.process.metrics()
  expect(metrics.get('sluice_staged_rows_total')).toBe(sent + 2)
  expect(metrics.get('sluice_stored_rows_total')).toBe(sent + 2)
  expect(metrics.get('sluice_request_duration_seconds_count')).toBe(sent + 2)
  expect(metrics.get('sluice_database_up')).toBe(1)
  for (const process of ['supervisor', '1', '2']) {
    expect(metrics.get(`process_resident_memory_bytes{process="${process}"}`)).toBeGreaterThan(0)
  }
  expect(await sluice.process.terminate()).toBe(0)
  expect(sluice.process.strayLines).toEqual([])
})

test('one process killed with -9 under load is begun again; the others serve, no 200 is lost, and no total falls', async () => {
  const sluice = await start()
  const stop = new AbortController()
  const { taken, sent, done } = load(sluice, stop.signal)
  const staged = async () => (await sluice.process.metrics()).get('sluice_staged_rows_total') ?? 0
  await expect.poll(staged, { timeout: 20_000 }).toBeGreaterThan(100)
  const before = await staged()
  const first = pidOf(sluice, 1)
  process.kill(first, 'SIGKILL')
  const atTheKill = taken.length
  const states = new Set<number>()
  const cameBack = async () => {
    states.add((await fetch(`${sluice.adminUrl}/health/ready`)).status)
    return pidOf(sluice, 1) !== first
  }
  await expect.poll(cameBack, { timeout: 20_000 }).toBe(true)
  expect(states).toEqual(new Set([200]))
  expect(taken.length).toBeGreaterThan(atTheKill)
  expect(await staged()).toBeGreaterThan(before)
  stop.abort()
  await done
  const ids = await stagedIds()
  expect(new Set(ids).size).toBe(ids.length)
  expect(taken.filter((id) => !ids.includes(id))).toEqual([])
  expect(ids.filter((id) => !sent.includes(id))).toEqual([])
  const ended = sluice.process.log.filter(({ event }) => event === 'process_ended')
  expect(ended).toMatchObject([{ process: 1, pid: first, signal: 'SIGKILL', level: 'error' }])
})

test('SIGTERM under load drains every process and exits 0; exactly what was answered 200 is staged', async () => {
  const sluice = await start()
  const stop = new AbortController()
  const { taken, done } = load(sluice, stop.signal)
  await expect.poll(() => taken.length, { timeout: 20_000 }).toBeGreaterThan(200)
  const exit = await sluice.process.terminate()
  stop.abort()
  await done
  expect(exit).toBe(0)
  expect((await stagedIds()).sort()).toEqual([...taken].sort())
  const stopped = sluice.process.log.filter(({ event }) => event === 'stopped').map(({ process }) => process)
  expect(stopped.slice(0, -1).sort()).toEqual([1, 2])
  // The one that holds everything else is the last.
  expect(stopped.at(-1)).toBe(undefined)
  expect(sluice.process.countEvents('process_ended')).toBe(0)
  expect(sluice.process.strayLines).toEqual([])
})

test('Ctrl-C to the whole process group ends an embedded server and two processes with 0, and any port that was free was one', async () => {
  const sluice = await start({ DATABASE_URL: '', HTTP_PORT: '0', GRPC_PORT: '0' }, [])
  const started = sluice.process.log.find(({ event }) => event === 'started')
  const url = String(started?.otlp_http)
  const { contentType, body } = spanRequest('a')
  const send = async () => {
    const headers = { 'content-type': contentType, connection: 'close' }
    return (await fetch(`${url}/v1/traces`, { method: 'POST', headers, body: new Uint8Array(body) })).status
  }
  expect(await Promise.all([send(), send(), send(), send()])).toEqual([200, 200, 200, 200])
  // When all of them are gone, those that come after them listen where they did.
  for (const pid of pids(sluice).values()) process.kill(pid, 'SIGKILL')
  await expect.poll(() => sluice.process.countEvents('process_started'), { timeout: 20_000 }).toBe(4)
  expect(await send()).toBe(200)
  process.kill(-sluice.process.pid, 'SIGINT')
  expect(await sluice.process.end()).toBe(0)
  expect(sluice.process.countEvents('process_ended')).toBe(2)
  expect(sluice.process.strayLines).toEqual([])
})

test('when the supervisor is killed with -9 its processes end at once, and nobody is left on the port', async () => {
  const sluice = await start()
  const children = [...pids(sluice).values()]
  expect(children.map(isAlive)).toEqual([true, true])
  await sluice.process.kill()
  await expect.poll(() => children.map(isAlive), { timeout: 3_000 }).toEqual([false, false])
  const probe = net.connect(Number(new URL(sluice.url).port), '127.0.0.1')
  await expect(once(probe, 'connect')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
})

test('a second signal ends all of them at once with 1', async () => {
  const sluice = await start()
  const children = [...pids(sluice).values()]
  // A body of which half has come: the drain waits for the rest.
  const upload = new RawConnection(Number(new URL(sluice.url).port))
  upload.write(head('Content-Length: 1000')).write('x'.repeat(500))
  const inFlight = async () => (await sluice.process.metrics()).get('sluice_inflight_bytes')
  await expect.poll(inFlight).toBe(500)
  process.kill(sluice.process.pid, 'SIGTERM')
  await expect.poll(() => sluice.process.countEvents('stopping')).toBe(3)
  process.kill(sluice.process.pid, 'SIGTERM')
  expect(await sluice.process.end()).toBe(1)
  await expect.poll(() => children.map(isAlive), { timeout: 3_000 }).toEqual([false, false])
  expect(sluice.process.log.filter(({ event }) => event === 'stopped').length).toBeLessThan(2)
  upload.socket.destroy()
})

test('a process that does not drain is killed after the grace, and the exit code is 1', async () => {
  const sluice = await start({ SHUTDOWN_GRACE_SECONDS: '1' })
  const frozen = pidOf(sluice, 2)
  process.kill(frozen, 'SIGSTOP')
  // Nor does it hold up the metrics.
  expect((await sluice.process.metrics()).get('sluice_database_up')).toBe(1)
  expect(await sluice.process.terminate(20_000)).toBe(1)
  expect(isAlive(frozen)).toBe(false)
  const failed = sluice.process.log.find(({ event }) => event === 'stop_failed')
  expect(failed?.error).toMatchObject({ message: 'process 2 ended by SIGKILL before it was done' })
})

test('a port in use ends the start with 2, and a process says which', async () => {
  const other = net.createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as net.AddressInfo
  const refused = await launchSluice(
    { DATABASE_URL: database.databaseUrl, PROCESSES: '2', HTTP_PORT: String(port) },
    ['--role', 'ingress'],
  )
  expect(await refused.process.end()).toBe(2)
  const failed = refused.process.log.filter(({ event }) => event === 'start_failed')
  expect(failed.at(0)?.error).toMatchObject({
    kind: 'configuration',
    message: expect.stringContaining(`cannot listen for OTLP/HTTP on 127.0.0.1:${port}`),
  })
  other.close()
})

test('SIGHUP takes up a new certificate in every process', async () => {
  const authority = await TestAuthority.open('ours')
  const [certFile, keyFile] = [join(folder, 'tls.crt'), join(folder, 'tls.key')]
  const install = async (issued: Issued) => {
    await copyFile(issued.certFile, certFile)
    await copyFile(issued.keyFile, keyFile)
  }
  await install(await authority.issue('first'))
  const sluice = await start({ TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile })
  const ca = await readFile(authority.certFile)
  const shown = async () => {
    const port = Number(new URL(sluice.url).port)
    const socket = tls.connect({ port, host: '127.0.0.1', servername: 'localhost', ca })
    await once(socket, 'secureConnect')
    const { CN } = socket.getPeerCertificate().subject
    socket.destroy()
    return String(CN)
  }
  expect([await shown(), await shown()]).toEqual(['first', 'first'])
  await install(await authority.issue('second'))
  process.kill(sluice.process.pid, 'SIGHUP')
  const taken = () => sluice.process.log.filter(({ event }) => event === 'tls_certificate').length
  await expect.poll(taken).toBe(4)
  expect([await shown(), await shown()]).toEqual(['second', 'second'])
  expect(
    (await sluice.process.metrics()).get('sluice_tls_certificate_expiry_timestamp_seconds'),
  ).toBeLessThan(Number.MAX_SAFE_INTEGER / 1000)
  expect(await sluice.process.terminate()).toBe(0)
})

test('a worker with PROCESSES says that it has no use for it, and works', async () => {
  const sluice = await start({}, ['--role', 'worker'])
  expect(sluice.process.log.find(({ event }) => event === 'setting_unused')?.detail).toMatch(/^PROCESSES=2 /)
  expect(sluice.process.countEvents('process_started')).toBe(0)
})
