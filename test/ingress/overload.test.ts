import { expect, test } from 'vitest'
import { asSuccess, callOnce, fullSuccess, inShort, serveGrpc } from './grpc-serve.ts'
import { overloadedBy } from './overload.ts'
import { head, oneSpan, PROTOBUF, RawConnection, readStatus, send, serveIngress } from './serve.ts'

const sentence = (priority: string) =>
  `overloaded (memory): a share of the requests of ${priority} priority is refused`

test('an overloaded listener refuses with 503, a wait and a Status, and logs and counts why', async () => {
  const loadShedding = await overloadedBy('memory', () => 0)
  await using ingress = await serveIngress({ loadShedding })
  const answer = await send(ingress.port, {
    body: oneSpan,
    headers: { 'content-type': PROTOBUF, 'x-priority': 'low', 'x-request-id': 'r1' },
  })
  expect([answer.status, answer.headers['retry-after'], answer.headers['x-request-id']]).toEqual([
    503,
    expect.stringMatching(/^[1-5]$/),
    'r1',
  ])
  expect(readStatus(answer)).toEqual({ code: 14, message: sentence('low') })
  expect(ingress.stager.appended).toBe(0)
  expect(ingress.lines()).toEqual([
    expect.objectContaining({
      level: 'warn',
      event: 'load_shedding',
      reason: 'memory',
      request_id: 'r1',
      priority: 'low',
    }),
  ])
  expect((await ingress.metrics.shedRequests.get()).values).toEqual([
    { labels: { reason: 'memory', priority: 'low' }, value: 1 },
  ])
  const answered = (await ingress.metrics.requests.get()).values
  expect(answered).toEqual([
    { labels: { signal: 'traces', transport: 'http', outcome: 'overloaded' }, value: 1 },
  ])
})

test('an overloaded gRPC listener refuses with UNAVAILABLE by the metadata key x-priority', async () => {
  const loadShedding = await overloadedBy('memory', () => 0.2)
  await using ingress = await serveGrpc({ loadShedding })
  const replies = []
  for (const priority of ['low', 'normal', 'high']) {
    replies.push(await callOnce(ingress.port, { headers: { 'x-priority': priority } }))
  }
  const [low, normal, high] = replies
  expect([low, normal].map((reply) => reply && inShort(reply))).toEqual([
    { status: 14, trailersOnly: true, message: sentence('low') },
    { status: 14, trailersOnly: true, message: sentence('normal') },
  ])
  expect(high && asSuccess(high)).toEqual(fullSuccess)
  expect(ingress.stager.appended).toBe(1)
  expect((await ingress.metrics.shedRequests.get()).values).toEqual([
    { labels: { reason: 'memory', priority: 'low' }, value: 1 },
    { labels: { reason: 'memory', priority: 'normal' }, value: 1 },
  ])
})

test('what is not refused is taken as ever', async () => {
  const loadShedding = await overloadedBy('memory', () => 0.5)
  await using ingress = await serveIngress({ loadShedding })
  const statuses = []
  for (const priority of ['low', 'normal', 'high']) {
    const headers = { 'content-type': PROTOBUF, 'x-priority': priority }
    statuses.push((await send(ingress.port, { body: oneSpan, headers })).status)
  }
  expect(statuses).toEqual([503, 200, 200])
  expect(ingress.stager.rows.length).toBe(2)
})

test('a request is refused before its body is asked for, and takes none of the bytes in flight', async () => {
  const loadShedding = await overloadedBy('memory', () => 0)
  await using ingress = await serveIngress({ loadShedding })
  const connection = new RawConnection(ingress.port)
  await connection.opened
  connection.write(head('Content-Length: 1000000', 'Expect: 100-continue'))
  const answer = await connection.until(/\r\n\r\n/)
  expect(answer.split('\r\n')[0]).toBe('HTTP/1.1 503 Service Unavailable')
  expect(ingress.budget.usedBytes).toBe(0)
  connection.socket.destroy()
})

test('what could never be taken is told so under overload too, and not to come again', async () => {
  const loadShedding = await overloadedBy('memory', () => 0)
  await using ingress = await serveIngress({ loadShedding })
  const answers = [
    await send(ingress.port, { path: '/nowhere', body: oneSpan }),
    await send(ingress.port, { method: 'GET' }),
    await send(ingress.port, { headers: { 'content-type': 'text/plain' }, body: oneSpan }),
  ]
  expect(answers.map(({ status }) => status)).toEqual([404, 405, 415])
})

test('the rate limit stands before it: what it refuses is not drawn for', async () => {
  let drawn = 0
  const loadShedding = await overloadedBy('memory', () => {
    drawn++
    return 0.99
  })
  await using ingress = await serveIngress({ loadShedding, rateLimit: { perSecond: 0.001, burst: 1 } })
  const first = await send(ingress.port, { body: oneSpan })
  const second = await send(ingress.port, { body: oneSpan })
  expect([first.status, second.status, drawn]).toEqual([200, 429, 1])
})
