import { createHash } from 'node:crypto'
import { systemClock } from '../../src/foundation/clock.ts'
import { Failure } from '../../src/foundation/failure.ts'
import { closePool } from '../../src/postgres/pool.ts'
import { relayQueue } from '../../src/queue/relay-queue.ts'
import { Relay, type RelayOptions } from '../../src/relay/relay.ts'
import type { ObjectStore, StoredObjectInfo } from '../../src/sink/object-store.ts'
import { createLogger, type Log } from '../../src/telemetry/log.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import type { TestDatabase } from '../support/postgres.ts'

type Hook = (key: string, body: Buffer, signal: AbortSignal | undefined) => Promise<void> | void

/** A store in memory whose puts can be made to fail, hang or lose their answer: what a test cannot ask of a real one. */
export class FaultyStore implements ObjectStore {
  readonly description = 'faulty'
  readonly bucket = 'faulty'
  readonly objects = new Map<string, Buffer>()
  beforePut: Hook = () => undefined
  afterPut: Hook = () => undefined
  puts = 0

  async prepare(): Promise<void> {
    // It is always there.
  }
  async put(key: string, body: Buffer, _checksum: string, signal?: AbortSignal): Promise<void> {
    this.puts++
    await this.beforePut(key, body, signal)
    const there = this.objects.get(key)
    if (there !== undefined && !there.equals(body)) throw new Failure('data', 'another object is there')
    this.objects.set(key, Buffer.from(body))
    await this.afterPut(key, body, signal)
  }
  async get(key: string): Promise<Buffer | undefined> {
    return this.objects.get(key)
  }
  async stat(key: string): Promise<StoredObjectInfo | undefined> {
    const body = this.objects.get(key)
    if (body === undefined) return undefined
    const checksum = `sha256:${createHash('sha256').update(body).digest('hex')}`
    return { key, bytes: body.length, checksum, modifiedAt: new Date() }
  }
  async remove(key: string): Promise<void> {
    this.objects.delete(key)
  }
  async *list(): AsyncIterable<StoredObjectInfo> {
    for (const key of this.objects.keys()) {
      const info = await this.stat(key)
      if (info !== undefined) yield info
    }
  }
  async close(): Promise<void> {
    // Nothing is open.
  }
}

export interface RelayFixture {
  relay: Relay
  events: { event: string; [field: string]: unknown }[]
  stop(giveUp?: AbortSignal): Promise<void>
}

/** A relay on a database, started, with short times. What it logs is in `events`. */
export async function startRelay(
  database: TestDatabase,
  store: ObjectStore,
  changes: Partial<RelayOptions> = {},
): Promise<RelayFixture> {
  const events: RelayFixture['events'] = []
  const log: Log = createLogger({
    level: 'debug',
    clock: systemClock,
    destination: { write: (line: string) => void events.push(JSON.parse(line)) },
  })
  const claims = database.open({ name: 'claims', connections: 2, planCacheMode: 'force_generic_plan' })
  const settles = database.open({ name: 'settles', connections: 3 })
  const leaseSeconds = changes.leaseSeconds ?? 60
  const relay = new Relay({
    queue: relayQueue({ claims, settles, owner: 'test', leaseSeconds, clock: systemClock }),
    store,
    keyPrefix: '',
    leaseSeconds,
    attemptsMax: 3,
    backoff: { baseMs: 20, maxMs: 100, random: () => 0.5 },
    batchRowsMax: 25,
    flushIntervalMs: 10,
    workers: 2,
    bufferRowsMax: 100,
    bufferBytesMax: 64 * 1024 * 1024,
    circuitFailureThreshold: 5,
    circuitResetSeconds: 1,
    clock: systemClock,
    random: () => 0.5,
    log,
    metrics: createMetrics(),
    ...changes,
  })
  await relay.start()
  return {
    relay,
    events,
    async stop(giveUp = new AbortController().signal) {
      await relay.stop(giveUp)
      await Promise.all([closePool(claims, 1000), closePool(settles, 1000)])
    },
  }
}
