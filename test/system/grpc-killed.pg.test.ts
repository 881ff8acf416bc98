import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import grpc from '@grpc/grpc-js'
import { expect, test } from 'vitest'
import { protobufFromJson } from '../../src/otlp/json-to-protobuf.ts'
import { closePool } from '../../src/postgres/pool.ts'
import { cloneDatabase } from '../support/postgres.ts'
import { type RunningSluice, spanRequest, startSluice } from './sluice.ts'

const method = '/opentelemetry.proto.collector.trace.v1.TraceService/Export'
const senders = 8

/** Calls, one after the other from each sender, until one fails; `taken` has the ids of those that were answered OK. */
function load({ grpcTarget }: RunningSluice): { taken: string[]; sent: string[]; done: Promise<unknown> } {
  const [taken, sent]: [string[], string[]] = [[], []]
  const raw = (bytes: Buffer) => bytes
  const sendAll = async (sender: number) => {
    const client = new grpc.Client(grpcTarget, grpc.credentials.createInsecure(), {
      'grpc.enable_retries': 0,
    })
    for (let count = 0; ; count++) {
      const id = `${sender}-${count}`
      const body = protobufFromJson('traces', spanRequest(id).body)
      const metadata = new grpc.Metadata()
      metadata.set('x-request-id', id)
      sent.push(id)
      const { promise, resolve } = Promise.withResolvers<boolean>()
      client.makeUnaryRequest(method, raw, raw, body, metadata, {}, (error) => resolve(error === null))
      if (!(await promise)) break
      taken.push(id)
    }
    client.close()
  }
  return { taken, sent, done: Promise.all(Array.from({ length: senders }, (_, sender) => sendAll(sender))) }
}

for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
  test(`${signal} under a load of gRPC: every OK is in the queue once, every other call at most once`, async () => {
    const database = await cloneDatabase()
    const sql = database.open()
    const folder = await mkdtemp(join(tmpdir(), 'sluice-grpc-'))
    // Without a worker what was staged stays in the queue, by the id of its request.
    const settings = {
      DATABASE_URL: database.databaseUrl,
      DATA_DIR: join(folder, 'data'),
      STAGING_MAX_BACKLOG: '100000',
    }
    const sluice = await startSluice(settings, ['--role', 'ingress'])
    const { taken, sent, done } = load(sluice)
    await expect.poll(() => taken.length, { timeout: 20_000 }).toBeGreaterThan(300)
    if (signal === 'SIGTERM') expect(await sluice.process.terminate()).toBe(0)
    else await sluice.process.kill()
    await done
    const rows = await sql<{ request_id: string }[]>`SELECT request_id FROM ingestion_queue`
    const staged = rows.map(({ request_id }) => request_id)
    expect(new Set(staged).size).toBe(staged.length)
    expect(taken.filter((id) => !staged.includes(id))).toEqual([])
    expect(staged.filter((id) => !sent.includes(id))).toEqual([])
    // A drain answers what is in hand, so that nothing is staged that its sender does not know of.
    if (signal === 'SIGTERM') expect([...staged].sort()).toEqual([...taken].sort())
    await closePool(sql, 1000)
    await database.drop()
  }, 60_000)
}
