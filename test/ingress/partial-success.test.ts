import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import { jsonFromProtobuf } from '../../src/otlp/protobuf-to-json.ts'
import { type Signal, signals } from '../../src/otlp/signal.ts'
import { JSON_TYPE, PROTOBUF, payload, readResponse, readStatus, send, serveIngress } from './serve.ts'

/** Three profiles in two scopes: ProfilesData of nothing but what is counted. */
const profiles = Buffer.from('0a0a 1204 1200 1200 1202 1200'.replaceAll(' ', ''), 'hex')

/** Requests, how many items are in each, and what a partial success calls those. */
const requests: Record<Signal, { body: Buffer; items: number; field: string }> = {
  traces: { body: payload('js-traces.pb'), items: 100, field: 'rejectedSpans' },
  metrics: { body: payload('js-metrics.pb'), items: 7, field: 'rejectedDataPoints' },
  logs: { body: payload('js-logs.pb'), items: 30, field: 'rejectedLogRecords' },
  profiles: { body: profiles, items: 3, field: 'rejectedProfiles' },
}
const all = Object.keys(requests) as Signal[]
const drop = 'the queue is full and the overflow policy is drop: nothing of this request was kept'

for (const signal of all) {
  const { body, items, field } = requests[signal]
  const { path } = signals[signal]
  const json = Buffer.from(jsonFromProtobuf(signal, body))
  const sendBoth = async (port: number) => ({
    binary: await send(port, { path, body }),
    text: await send(port, { path, headers: { 'content-type': JSON_TYPE }, body: json }),
  })

  test(`D11: what is dropped of ${signal} is told as ${field}, the number of its items, in both formats`, async () => {
    await using ingress = await serveIngress({ signals: all })
    ingress.decide({ outcome: 'drop', policy: 'drop' })
    const { binary, text } = await sendBoth(ingress.port)
    expect([binary.headers['content-type'], readResponse(binary.body)]).toEqual([
      PROTOBUF,
      { partialSuccess: { rejected: items, errorMessage: drop } },
    ])
    expect([text.headers['content-type'], JSON.parse(text.body.toString())]).toEqual([
      JSON_TYPE,
      { partialSuccess: { [field]: String(items), errorMessage: drop } },
    ])
  })

  test(`D11: ${signal} that are committed are told without any partial success`, async () => {
    await using ingress = await serveIngress({ signals: all })
    const { binary, text } = await sendBoth(ingress.port)
    expect([binary.status, binary.body.length, text.status, text.body.toString()]).toEqual([
      200,
      0,
      200,
      '{}',
    ])
    expect(ingress.stager.rows.map((row) => [row.signal, row.items])).toEqual(Array(2).fill([signal, items]))
  })

  test(`D11: ${signal} that may be sent again are told as an error, never as a partial success`, async () => {
    await using ingress = await serveIngress({ signals: all })
    ingress.decide({ outcome: 'reject' })
    const full = await sendBoth(ingress.port)
    ingress.decide({ outcome: 'stage' })
    ingress.stager.failure = new Failure('outage', 'connection refused', { code: 'ECONNREFUSED' })
    const away = await sendBoth(ingress.port)
    const told = [full.binary, full.text, away.binary, away.text].map((answer) => [
      answer.status,
      readStatus(answer),
    ])
    const queueFull = { code: 8, message: 'the queue is full' }
    const notStaged = { code: 14, message: 'the request could not be staged; send it again' }
    expect(told).toEqual([
      [429, queueFull],
      [429, queueFull],
      [503, notStaged],
      [503, notStaged],
    ])
  })
}
