import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { closePool, type Sql } from '../../src/postgres/pool.ts'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { decodeWithPython } from '../support/python.ts'
import { type RunningSluice, startSluice } from '../system/sluice.ts'
import { everything } from './everything.ts'
import { Collector, type CollectorRoute, runTelemetrygen } from './go-peers.ts'
import { someTime } from './sample.ts'
import { clientSignals, type Message, readStored } from './stored.ts'

let database: TestDatabase
let sql: Sql
let dataDir: string
let sluice: RunningSluice

beforeAll(async () => {
  database = await cloneDatabase()
  sql = database.open()
  dataDir = mkdtempSync(join(tmpdir(), 'sluice-clients-'))
  chmodSync(dataDir, 0o755)
  sluice = await startSluice({ DATABASE_URL: database.databaseUrl, DATA_DIR: dataDir })
})
afterAll(async () => {
  expect(await sluice.process.terminate()).toBe(0)
  expect(sluice.process.strayLines).toEqual([])
  expect(sluice.process.log.filter(({ level }) => level === 'error' || level === 'warn')).toEqual([])
  await closePool(sql, 1000)
  await database.drop()
  rmSync(dataDir, { recursive: true, force: true })
})

const routes: CollectorRoute[] = [
  { transport: 'http', compression: 'gzip' },
  { transport: 'http', compression: 'zstd' },
  { transport: 'grpc', compression: 'gzip' },
  { transport: 'grpc', compression: 'zstd' },
]

test('a Collector forwards by HTTP and gRPC with gzip and zstd: every field is stored once, as it was sent', async () => {
  const collector = await Collector.start(sluice, routes)
  const services = routes.map(({ transport, compression }) => `collector ${transport} ${compression} 😀`)
  for (const [at, route] of routes.entries()) {
    const requests = everything(services[at] ?? '')
    for (const signal of clientSignals) {
      const answer = await fetch(`${collector.entrance(route).url}/v1/${signal}`, {
        method: 'POST',
        headers: { 'content-type': 'application/x-protobuf' },
        body: new Uint8Array(requests[signal]),
      })
      expect(answer.status, await answer.text()).toBe(200)
    }
  }
  await collector.stop()
  expect(collector.complaints).toEqual([])
  const stored = await readStored(sql, dataDir)
  for (const service of services) {
    const requests = everything(service)
    const sent = await decodeWithPython(
      clientSignals.map((signal) => ({ signal, encoding: 'identity', body: requests[signal] })),
    )
    const found = clientSignals.map((signal) => stored.resources(signal, service))
    expect(found, service).toEqual(sent.flatMap((request) => Object.values(request)))
  }
})

/** Counts how often each value stands in a field of these messages. */
function tally(messages: readonly Message[], field: string): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const message of messages) counts[String(message[field])] = (counts[String(message[field])] ?? 0) + 1
  return counts
}

test.each(['http', 'grpc'] as const)(
  'telemetrygen over %s: every item is stored once, with its values',
  async (transport) => {
    const service = `telemetrygen ${transport} 😀`
    const flags = ['--telemetry-attributes', 'größe="世界 😀"']
    const run = (signal: (typeof clientSignals)[number], count: number, more: string[] = []) =>
      runTelemetrygen(signal, { transport, to: sluice, service, count, flags: [...flags, ...more] })
    const kinds = ['Gauge', 'Sum', 'Histogram', 'ExponentialHistogram']
    const metrics = kinds.map((kind) => run('metrics', 50, ['--metric-type', kind]))
    const traces = run('traces', 500, ['--child-spans', '3', '--status-code', 'Error', '--span-links', '1'])
    const logs = run('logs', 1000, [
      '--body',
      'größer 😀',
      '--severity-text',
      'WARN',
      '--severity-number',
      '13',
    ])
    for (const { code, output } of await Promise.all([traces, logs, ...metrics])) expect(code, output).toBe(0)

    const stored = await readStored(sql, dataDir)
    const spans = stored.items('traces', service)
    expect(tally(spans, 'name')).toEqual({
      'lets-go': 500,
      'okey-dokey-0': 500,
      'okey-dokey-1': 500,
      'okey-dokey-2': 500,
    })
    expect(new Set(spans.map(({ spanId }) => spanId)).size).toBe(2000)
    const attribute = (key: string, stringValue: string) => ({ key, value: { stringValue } })
    const given = attribute('größe', '世界 😀')
    const peerAddress = attribute('network.peer.address', '1.2.3.4')
    expect(spans.filter(({ name }) => name === 'okey-dokey-2')).toEqual(
      Array.from({ length: 500 }, () => ({
        traceId: expect.stringMatching(/^[A-Za-z0-9+/]{22}==$/),
        spanId: expect.stringMatching(/^[A-Za-z0-9+/]{11}=$/),
        parentSpanId: expect.stringMatching(/^[A-Za-z0-9+/]{11}=$/),
        name: 'okey-dokey-2',
        kind: 'SPAN_KIND_SERVER',
        startTimeUnixNano: someTime,
        endTimeUnixNano: someTime,
        attributes: [peerAddress, attribute('service.peer.name', 'telemetrygen-client'), given],
        links: [
          expect.objectContaining({ attributes: [attribute('link.type', 'random'), expect.anything()] }),
        ],
        status: { code: 'STATUS_CODE_ERROR' },
        flags: 257,
      })),
    )
    expect(stored.items('logs', service)).toEqual(
      Array.from({ length: 1000 }, () => ({
        timeUnixNano: someTime,
        severityNumber: 'SEVERITY_NUMBER_WARN',
        severityText: 'WARN',
        body: { stringValue: 'größer 😀' },
        attributes: [attribute('app', 'server'), given],
        droppedAttributesCount: 1,
      })),
    )
    const points = stored
      .items('metrics', service)
      .flatMap(({ name, ...kinds }) =>
        Object.entries(kinds).flatMap(([kind, data]) =>
          (data as { dataPoints: Message[] }).dataPoints.map((point) => ({ kind, ...point })),
        ),
      )
    expect(tally(points, 'kind')).toEqual({ gauge: 50, sum: 50, histogram: 50, exponentialHistogram: 50 })
    // Gauge and sum count up from 0, so each value is there twice, and no other is.
    const values = Object.fromEntries(Array.from({ length: 50 }, (_, value) => [String(value), 2]))
    expect(
      tally(
        points.filter((point) => 'asInt' in point),
        'asInt',
      ),
    ).toEqual(values)
    for (const point of points) expect(point).toMatchObject({ attributes: [given] })
  },
)
