import { expect, test } from 'vitest'
import { chunk, head, lastChunk, oneSpan, RawConnection, serveIngress } from './serve.ts'

const post = (body: Buffer) => Buffer.concat([Buffer.from(head(`Content-Length: ${body.length}`)), body])
const inChunks = (body: Buffer) =>
  Buffer.concat([Buffer.from(head('Transfer-Encoding: chunked')), chunk(body), lastChunk])
const bare = (line: string) => Buffer.from(`${line} HTTP/1.1\r\nHost: a\r\n\r\n`)
const statuses = (received: string) => received.match(/(?<=HTTP\/1\.1 )\d+/g)?.map(Number)

/** Requests of every kind, and what each is answered. */
const kinds: [Buffer, number][] = [
  [post(oneSpan), 200],
  [post(Buffer.from('1234')), 400],
  [bare('GET /v1/traces'), 405],
  [inChunks(oneSpan), 200],
  [bare('HEAD /v1/traces'), 405],
  [bare('OPTIONS /v1/logs'), 204],
  [bare('POST /v1/metrics'), 415],
  [bare('POST /nope'), 404],
  [post(Buffer.alloc(0)), 200],
  [inChunks(Buffer.from('1234')), 400],
]

test('500 requests of every kind in one piece are answered in their order on one connection', async () => {
  await using ingress = await serveIngress()
  const requests = Array.from(
    { length: 500 },
    (_, index) => kinds[index % kinds.length] ?? kinds[0],
  ) as typeof kinds
  const connection = new RawConnection(ingress.port)
  connection.write(Buffer.concat(requests.map(([bytes]) => bytes)))
  await expect.poll(() => statuses(connection.received)?.length).toBe(500)
  expect(statuses(connection.received)).toEqual(requests.map(([, status]) => status))
  expect([ingress.stager.rows.length, ingress.budget.usedBytes]).toEqual([100, 0])
  connection.socket.destroy()
})

test('a request that is refused at once waits for the answer of the one before it', async () => {
  await using ingress = await serveIngress()
  const release = ingress.stager.hold()
  const connection = new RawConnection(ingress.port)
  connection.write(Buffer.concat([post(oneSpan), bare('POST /nope'), post(oneSpan)]))
  await ingress.stager.whenAppended(2)
  expect(connection.received).toBe('')
  release()
  await connection.until(/(?:HTTP[\s\S]*){3}/)
  expect(statuses(connection.received)).toEqual([200, 404, 200])
  connection.socket.destroy()
})

test('broken bytes behind good requests do not take their answers away', async () => {
  await using ingress = await serveIngress()
  const release = ingress.stager.hold()
  const connection = new RawConnection(ingress.port)
  connection.write(Buffer.concat([post(oneSpan), post(oneSpan), Buffer.from('\x00\x01garbage\r\n\r\n')]))
  await ingress.stager.whenAppended(2)
  release()
  await connection.closed
  expect(statuses(connection.received)).toEqual([200, 200])
  expect(ingress.lines()).toEqual([])
  connection.socket.destroy()
})

test('one connection cannot have more than 10,000 requests in hand: the next hear 503, and all are answered', async () => {
  await using ingress = await serveIngress()
  const release = ingress.stager.hold()
  const connection = new RawConnection(ingress.port)
  const sent = 12_000
  connection.write(Buffer.concat(Array.from({ length: sent }, () => post(oneSpan))))
  await expect.poll(() => ingress.lines()[0]?.reason, { timeout: 20_000 }).toBe('max_inflight_requests')
  expect(ingress.stager.appended).toBe(10_000)
  release()
  await expect.poll(() => statuses(connection.received)?.length, { timeout: 20_000 }).toBe(sent)
  const counts = Map.groupBy(statuses(connection.received) ?? [], (status) => status)
  expect([...counts.keys()].sort()).toEqual([200, 503])
  expect(counts.get(200)?.length).toBe(ingress.stager.rows.length)
  expect(ingress.budget.usedBytes).toBe(0)
  connection.socket.destroy()
})
