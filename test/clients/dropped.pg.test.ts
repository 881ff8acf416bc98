import { afterAll, beforeAll, expect, test } from 'vitest'
import { cloneDatabase, type TestDatabase } from '../support/postgres.ts'
import { post, type RunningSluice, spanRequest, startSluice } from '../system/sluice.ts'
import { Collector, type CollectorRoute, runTelemetrygen } from './go-peers.ts'
import { JsSdk, jsTransports, watchJsLog } from './js-sdk.ts'
import { sendPythonExports } from './python-sdk.ts'
import { clientSignals } from './stored.ts'

let database: TestDatabase
let sluice: RunningSluice

/** The queue is full from the first request on, and nobody empties it. */
beforeAll(async () => {
  database = await cloneDatabase()
  const settings = { DATABASE_URL: database.databaseUrl, STAGING_MAX_BACKLOG: '1', OVERFLOW_POLICY: 'drop' }
  sluice = await startSluice(settings, ['--role', 'ingress'])
  while ((await post(sluice.url, spanRequest('before'))) !== 202);
})
afterAll(async () => {
  expect(await sluice.process.terminate()).toBe(0)
  expect(sluice.process.strayLines).toEqual([])
  await database.drop()
})

/** How many requests a client sent of which all were dropped. */
async function droppedBy(send: () => Promise<void>): Promise<number> {
  const dropped = async () => (await sluice.process.metrics()).get('sluice_dropped_requests_total') ?? 0
  const before = await dropped()
  await send()
  return (await dropped()) - before
}

const sentence = 'the queue is full and the overflow policy is drop: nothing of this request was kept'

test.each(jsTransports)(
  'D7: the SDK for JavaScript over %s takes what was dropped for sent, and says so in its log',
  async (transport) => {
    const log = watchJsLog()
    const sdk = new JsSdk({ transport, to: sluice, service: 'dropped', oneByOne: true })
    const requests = await droppedBy(async () => {
      sdk.traces.getTracer('dropped').startSpan('dropped').end()
      sdk.metrics.getMeter('dropped').createCounter('dropped').add(1)
      sdk.logs.getLogger('dropped').emit({ body: 'dropped' })
      await sdk.shutdown()
    })
    log.stop()
    expect(requests).toBe(3)
    expect(sdk.outcome).toEqual({ succeeded: 3, errors: [] })
    // ProtoJSON writes 64-bit numbers as text.
    const one = transport === 'json' ? '"1"' : '1'
    expect(log.lines.toSorted()).toEqual(
      ['rejectedDataPoints', 'rejectedLogRecords', 'rejectedSpans'].map(
        (field) => `Received Partial Success response: {"${field}":${one},"errorMessage":"${sentence}"}`,
      ),
    )
  },
)

test.each(['http', 'grpc'] as const)(
  'D7: the SDK for Python over %s takes what was dropped for sent, and says nothing',
  async (transport) => {
    const requests = await droppedBy(async () => {
      const options = { transport, to: sluice, service: 'dropped', exports: 1, intervalSeconds: 0 }
      const { results, said } = await sendPythonExports({ ...options, compression: 'gzip' })
      expect({ results, said }).toEqual({ results: ['SUCCESS'], said: [] })
    })
    expect(requests).toBe(1)
  },
)

/** The exporters of the SDK for Go return a partial success as an error, upon which telemetrygen would stop. */
test.each(['http', 'grpc'] as const)(
  'D7: telemetrygen over %s sends nothing again that was dropped, and logs it as an error',
  async (transport) => {
    for (const signal of clientSignals) {
      const requests = await droppedBy(async () => {
        const { code, output } = await runTelemetrygen(signal, {
          ...{ transport, to: sluice, service: 'dropped', count: 2, batchSize: signal === 'traces' ? 2 : 1 },
          flags: ['--allow-export-failures'],
        })
        expect(code, output).toBe(0)
        expect(output.split(`OTLP partial success: ${sentence}`)).toHaveLength(3)
      })
      expect(requests, signal).toBe(2)
    }
  },
)

test('D7: a Collector takes what was dropped for sent, by both transports, and says so in its log', async () => {
  const routes: CollectorRoute[] = [
    { transport: 'http', compression: 'gzip' },
    { transport: 'grpc', compression: 'gzip' },
  ]
  const collector = await Collector.start(sluice, routes)
  const requests = await droppedBy(async () => {
    for (const route of routes) {
      expect(await post(collector.entrance(route).url, spanRequest('dropped'))).toBe(200)
    }
    await collector.stop()
  })
  expect(requests).toBe(2)
  const said = { level: 'warn', msg: 'Partial success response', message: sentence, dropped_spans: 1 }
  expect(collector.complaints).toEqual([expect.objectContaining(said), expect.objectContaining(said)])
})
