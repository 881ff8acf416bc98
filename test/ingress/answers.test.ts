import { once } from 'node:events'
import http from 'node:http'
import { expect, test } from 'vitest'
import { Failure } from '../../src/foundation/failure.ts'
import {
  type Answer,
  type Ingress,
  JSON_TYPE,
  oneSpan,
  PROTOBUF,
  type Request,
  readResponse,
  readStatus,
  send,
  serveIngress,
} from './serve.ts'

const oneSpanJson = Buffer.from(
  JSON.stringify({
    resourceSpans: [
      { scopeSpans: [{ spans: [{ traceId: '07'.repeat(16), spanId: '07'.repeat(8), name: 'n' }] }] },
    ],
  }),
)
const bodies = { [PROTOBUF]: oneSpan, [JSON_TYPE]: oneSpanJson }

/** Each way to be refused: how to bring it about, and the status and google.rpc.Code that must come back. */
const refusals: {
  title: string
  status: number
  code: number
  request?: (type: string) => Request
  arrange?: (ingress: Ingress) => void
  options?: Parameters<typeof serveIngress>[0]
}[] = [
  { title: 'malformed', status: 400, code: 3, request: () => ({ body: Buffer.from('1234') }) },
  { title: 'unknown path', status: 404, code: 12, request: () => ({ path: '/v1/nope', body: oneSpan }) },
  { title: 'wrong method', status: 405, code: 12, request: () => ({ method: 'PATCH', body: oneSpan }) },
  {
    title: 'too large',
    status: 413,
    code: 8,
    request: () => ({ body: Buffer.alloc(101) }),
    options: { maxBodyBytes: 100 },
  },
  {
    title: 'rate limited',
    status: 429,
    code: 8,
    options: { rateLimit: { perSecond: 0.001, burst: 1 } },
    arrange: () => undefined,
  },
  { title: 'queue full', status: 429, code: 8, arrange: (ingress) => ingress.decide({ outcome: 'reject' }) },
  {
    title: 'database away',
    status: 503,
    code: 14,
    arrange: ({ stager }) => {
      stager.failure = new Failure('outage', 'connection refused', { code: 'ECONNREFUSED' })
    },
  },
  {
    title: 'refused by the database for its data',
    status: 400,
    code: 3,
    arrange: ({ stager }) => {
      stager.failure = new Failure('data', 'value too long', { code: '22001' })
    },
  },
  {
    title: 'a bug of ours',
    status: 503,
    code: 14,
    arrange: ({ stager }) => {
      stager.failure = new TypeError('x is not a function')
    },
  },
  { title: 'disk nearly full', status: 503, code: 14, options: { refusal: () => 'less than 1 GiB is free' } },
  { title: 'in-flight bytes used up', status: 503, code: 14, options: { inflightBytes: 10 } },
]

for (const type of [PROTOBUF, JSON_TYPE] as const) {
  for (const { title, status, code, request, arrange, options } of refusals) {
    test(`D10: ${title}: ${status} as google.rpc.Status in ${type}`, async () => {
      await using ingress = await serveIngress(options)
      arrange?.(ingress)
      if (status === 429 && options?.rateLimit !== undefined) await send(ingress.port, { body: oneSpan })
      const answer = await send(ingress.port, {
        headers: { 'content-type': type },
        body: bodies[type],
        ...request?.(type),
      })
      expect([answer.status, answer.headers['content-type'], readStatus(answer).code]).toEqual([
        status,
        type,
        code,
      ])
      expect(readStatus(answer).message).not.toBe('')
      expect(retryAfterIsRight(answer)).toBe(true)
      expect(ingress.budget.usedBytes).toBe(0)
    })
  }

  test(`D10: a full success in ${type} says nothing but 200`, async () => {
    await using ingress = await serveIngress()
    const answer = await send(ingress.port, { headers: { 'content-type': type }, body: bodies[type] })
    expect([answer.status, answer.headers['content-type'], answer.body.toString()]).toEqual([
      200,
      type,
      type === JSON_TYPE ? '{}' : '',
    ])
  })
}

/** Whole seconds from 1 to 5, there exactly on the statuses that a sender retries. */
function retryAfterIsRight({ status, headers }: Answer): boolean {
  const header = headers['retry-after']
  return status === 429 || status === 503 ? /^[1-5]$/.test(header ?? '') : header === undefined
}

test('D10: a request without a content type of ours is answered in JSON: 404, 405 and 415', async () => {
  await using ingress = await serveIngress()
  const answers = await Promise.all([
    send(ingress.port, { path: '/nope', headers: {}, body: oneSpan }),
    send(ingress.port, { method: 'GET', headers: {} }),
    send(ingress.port, { headers: {}, body: oneSpan }),
    send(ingress.port, { headers: { 'content-type': 'text/plain' }, body: oneSpan }),
  ])
  expect(
    answers.map((answer) => [answer.status, answer.headers['content-type'], readStatus(answer).code]),
  ).toEqual([
    [404, JSON_TYPE, 12],
    [405, JSON_TYPE, 12],
    [415, JSON_TYPE, 12],
    [415, JSON_TYPE, 12],
  ])
})

test('405 names the methods that are allowed, for every other method', async () => {
  await using ingress = await serveIngress()
  for (const method of ['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE', 'TRACE']) {
    const answer = await send(ingress.port, { method, headers: {} })
    expect([method, answer.status, answer.headers.allow]).toEqual([method, 405, 'OPTIONS, POST'])
  }
})

test('what drop and sample throw away is 202 with the count and the reason, in protobuf and JSON', async () => {
  await using ingress = await serveIngress()
  const said = []
  for (const policy of ['drop', 'sample'] as const) {
    ingress.decide({ outcome: 'drop', policy })
    const binary = await send(ingress.port, { body: oneSpan })
    const text = await send(ingress.port, { headers: { 'content-type': JSON_TYPE }, body: oneSpanJson })
    said.push([binary.status, readResponse(binary.body)], [text.status, JSON.parse(text.body.toString())])
  }
  const drop = 'the queue is full and the overflow policy is drop: nothing of this request was kept'
  const sample = 'the queue is full and the overflow policy is sample: this request was not in the sample'
  expect(said).toEqual([
    [202, { partialSuccess: { rejected: 1, errorMessage: drop } }],
    [202, { partialSuccess: { rejectedSpans: '1', errorMessage: drop } }],
    [202, { partialSuccess: { rejected: 1, errorMessage: sample } }],
    [202, { partialSuccess: { rejectedSpans: '1', errorMessage: sample } }],
  ])
  expect(ingress.stager.appended).toBe(0)
})

test('the status of what was dropped can be 200 for clients that know no 202', async () => {
  await using ingress = await serveIngress({ droppedStatus: 200 })
  ingress.decide({ outcome: 'drop', policy: 'drop' })
  const answer = await send(ingress.port, { body: oneSpan })
  expect([answer.status, readResponse(answer.body)]).toMatchObject([200, { partialSuccess: { rejected: 1 } }])
})

test('a dropped request without items names no partial success', async () => {
  await using ingress = await serveIngress()
  ingress.decide({ outcome: 'drop', policy: 'drop' })
  const answer = await send(ingress.port, { body: Buffer.from('0a00', 'hex') })
  expect([answer.status, answer.body.length]).toEqual([202, 0])
})

test('every answer carries the request id: the sender’s own if it is usable, else a new one', async () => {
  await using ingress = await serveIngress()
  const sent = { 'x-request-id': 'order 66' }
  const answers = [
    await send(ingress.port, { headers: { 'content-type': PROTOBUF, ...sent }, body: oneSpan }),
    await send(ingress.port, { headers: { 'content-type': PROTOBUF, ...sent }, body: Buffer.from('1234') }),
    await send(ingress.port, { path: '/nope', headers: sent, body: oneSpan }),
    await send(ingress.port, { method: 'HEAD', headers: sent }),
  ]
  expect(answers.map(({ headers }) => headers['x-request-id'])).toEqual(Array(4).fill('order 66'))
  expect(ingress.stager.rows.map(({ requestId }) => requestId)).toEqual(['order 66'])
  const made = await send(ingress.port, { body: oneSpan })
  expect(made.headers['x-request-id']).toBe(ingress.stager.rows[1]?.requestId)
})

test('each refusal of a policy is one log line with its event, reason and request id, and is counted', async () => {
  await using ingress = await serveIngress({ rateLimit: { perSecond: 0.001, burst: 3 } })
  const headers = (id: string) => ({ 'content-type': PROTOBUF, 'x-request-id': id })
  ingress.decide({ outcome: 'reject' })
  await send(ingress.port, { headers: headers('rejected'), body: oneSpan })
  ingress.decide({ outcome: 'drop', policy: 'drop' })
  await send(ingress.port, { headers: headers('dropped'), body: oneSpan })
  ingress.decide({ outcome: 'stage' })
  await send(ingress.port, { headers: headers('taken'), body: oneSpan })
  await send(ingress.port, { headers: headers('limited'), body: oneSpan })
  const lines = ingress
    .lines()
    .map(({ event, reason, level, request_id }) => [event, reason, level, request_id])
  expect(lines).toEqual([
    ['queue_saturated', 'queue_full_reject', 'warn', 'rejected'],
    ['load_shedding', 'queue_full_drop_or_sample', 'warn', 'dropped'],
    ['rate_limited', 'limit_exceeded', 'warn', 'limited'],
  ])
  const counted = async (name: string) =>
    (await ingress.metrics.registry.getSingleMetric(name)?.get())?.values.map(({ value, labels }) => [
      value,
      labels,
    ])
  expect(await counted('sluice_rate_limited_total')).toEqual([[1, {}]])
  expect(await counted('sluice_queue_saturated_total')).toEqual([[1, {}]])
  expect(await counted('sluice_dropped_items_total')).toEqual([
    [1, { signal: 'traces', reason: 'overflow_drop' }],
  ])
})

test('a limited rate admits its burst and 50 requests a second within 5 %, and every other request hears 429', async () => {
  await using ingress = await serveIngress({ rateLimit: { perSecond: 50, burst: 10 } })
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 })
  const counts = { 200: 0, 429: 0 } as Record<number, number>
  const startedMs = performance.now()
  const sendUntilDone = async () => {
    while (performance.now() - startedMs < 3000) {
      const { status } = await send(ingress.port, { body: oneSpan, agent })
      counts[status] = (counts[status] ?? 0) + 1
    }
  }
  await Promise.all([1, 2, 3, 4].map(sendUntilDone))
  const seconds = (performance.now() - startedMs) / 1000
  agent.destroy()
  expect(Object.keys(counts)).toEqual(['200', '429'])
  // The burst is larger than what flows in while the machine is busy with others and the loop is late.
  expect(Math.abs((counts[200] ?? 0) / (10 + 50 * seconds) - 1)).toBeLessThan(0.05)
})

test('a bug is logged once, with its stack, and the sender is told to come again', async () => {
  await using ingress = await serveIngress()
  ingress.stager.failure = new TypeError('x is not a function')
  const answer = await send(ingress.port, {
    headers: { 'content-type': PROTOBUF, 'x-request-id': 'r' },
    body: oneSpan,
  })
  expect(answer.status).toBe(503)
  const lines = ingress.lines().filter(({ level }) => level === 'error')
  expect(lines).toMatchObject([
    {
      event: 'request_failed',
      reason: 'bug',
      request_id: 'r',
      error: { kind: 'TypeError', message: 'x is not a function' },
    },
  ])
})

test('a Host or target that makes no URL is 400 in the request’s own format', async () => {
  await using ingress = await serveIngress()
  const outgoing = http.request({
    host: '127.0.0.1',
    port: ingress.port,
    method: 'POST',
    path: '/v1/traces',
    headers: { host: 'a b', 'content-type': JSON_TYPE, 'content-length': 2 },
    agent: false,
  })
  outgoing.end('{}')
  const [response] = (await once(outgoing, 'response')) as [http.IncomingMessage]
  const body = Buffer.concat(await response.toArray())
  const answer = { status: response.statusCode ?? 0, headers: response.headers, body }
  expect([answer.status, readStatus(answer).code]).toEqual([400, 3])
})
