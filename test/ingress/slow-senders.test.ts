import { expect, test } from 'vitest'
import { head, oneSpan, PROTOBUF, RawConnection, serveIngress } from './serve.ts'

const TIMEOUT_MS = 1_000
const post = Buffer.concat([Buffer.from(head(`Content-Length: ${oneSpan.length}`)), oneSpan])
const statuses = (received: string) => received.match(/(?<=HTTP\/1\.1 )\d+/g)?.map(Number)

/** Sends one byte each 50 ms until the connection ends; answers after how long that was. */
async function drip(connection: RawConnection, byte: string): Promise<number> {
  const startedMs = performance.now()
  const timer = setInterval(() => connection.write(byte), 50)
  await connection.closed
  clearInterval(timer)
  connection.socket.destroy()
  return performance.now() - startedMs
}

test.concurrent('a head that comes byte by byte is 408 when its time is over, and the log says so once', async () => {
  await using ingress = await serveIngress({ requestTimeoutMs: TIMEOUT_MS })
  const connection = new RawConnection(ingress.port).write('POST /v1/traces HTTP/1.1\r\nX-Slow: ')
  const tookMs = await drip(connection, 'x')
  expect(tookMs).toBeGreaterThan(TIMEOUT_MS - 50)
  expect(tookMs).toBeLessThan(TIMEOUT_MS + 500)
  expect(connection.received).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\n[\s\S]*\r\nConnection: close\r\n/)
  expect(ingress.lines().map(({ event, reason }) => [event, reason])).toEqual([
    ['http_malformed', 'ERR_HTTP_REQUEST_TIMEOUT'],
  ])
})

for (const [form, start, more] of [
  ['declared and small', head('Content-Length: 1000'), 'x'],
  ['declared and large', head('Content-Length: 10000000'), 'x'],
  ['in chunks', head('Transfer-Encoding: chunked'), '1\r\nx\r\n'],
] as const) {
  test.concurrent(`a body that comes byte by byte (${form}) is 503 with Retry-After when its time is over`, async () => {
    await using ingress = await serveIngress({ requestTimeoutMs: TIMEOUT_MS })
    const connection = new RawConnection(ingress.port).write(start)
    const startedMs = performance.now()
    const closed = drip(connection, more)
    await connection.until(/\r\n\r\n/)
    const answeredMs = performance.now() - startedMs
    expect(answeredMs).toBeGreaterThan(TIMEOUT_MS - 50)
    expect(answeredMs).toBeLessThan(TIMEOUT_MS + 500)
    expect(ingress.budget.usedBytes).toBe(0)
    // A client that still sends is read on for 2 s, so that it can read the answer.
    const closedMs = await closed
    expect(closedMs).toBeGreaterThan(TIMEOUT_MS + 1_500)
    expect(closedMs).toBeLessThan(TIMEOUT_MS + 2_500)
    expect(connection.received).toMatch(/^HTTP\/1\.1 503 Service Unavailable\r\n/)
    expect(connection.received).toMatch(new RegExp(`\r\nContent-Type: ${PROTOBUF}\r\n`))
    expect(connection.received).toMatch(/\r\nRetry-After: [1-5]\r\n/)
    expect(connection.received).toMatch(/\r\nConnection: close\r\n/)
    expect([statuses(connection.received), ingress.stager.appended]).toEqual([[503], 0])
  })
}

test.concurrent('a body of which nothing more comes is 503 when its time is over', async () => {
  await using ingress = await serveIngress({ requestTimeoutMs: TIMEOUT_MS })
  const connection = new RawConnection(ingress.port).write(head('Content-Length: 1000'))
  await connection.until(/^HTTP\/1\.1 503 /)
  connection.socket.destroy()
})

test.concurrent('a client that expects to be told, is, and then sends nothing hears 503 when its time is over', async () => {
  await using ingress = await serveIngress({ requestTimeoutMs: TIMEOUT_MS })
  const connection = new RawConnection(ingress.port)
  connection.write(head('Expect: 100-continue', 'Content-Length: 1000'))
  await connection.until(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 503 /)
  connection.socket.destroy()
})

test.concurrent('a connection that never says anything is closed without a word, and without a line in the log', async () => {
  await using ingress = await serveIngress({ requestTimeoutMs: TIMEOUT_MS })
  const connection = new RawConnection(ingress.port)
  const startedMs = performance.now()
  await connection.closed
  expect(performance.now() - startedMs).toBeLessThan(TIMEOUT_MS + 500)
  expect([connection.received, ingress.lines()]).toEqual(['', []])
})

test.concurrent('the rest of a refused upload that does not come costs the connection, and makes no second answer', async () => {
  await using ingress = await serveIngress({ requestTimeoutMs: TIMEOUT_MS })
  const connection = new RawConnection(ingress.port)
  connection.write('POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n')
  await drip(connection, 'x')
  expect([statuses(connection.received), ingress.lines()]).toEqual([[404], []])
})

test.concurrent('the time is that of one request: neither a pause between two nor a slow commit is counted', async () => {
  await using ingress = await serveIngress({ requestTimeoutMs: TIMEOUT_MS })
  const connection = new RawConnection(ingress.port)
  await connection.write(post).until(/200 OK/)
  await new Promise((resolve) => setTimeout(resolve, 1.5 * TIMEOUT_MS))
  const release = ingress.stager.hold()
  connection.write(post)
  await ingress.stager.whenAppended(2)
  setTimeout(release, 1.5 * TIMEOUT_MS)
  await connection.until(/200 OK[\s\S]*200 OK/)
  connection.socket.destroy()
})

test.concurrent('a slow head behind a request in hand does not take its answer away', async () => {
  await using ingress = await serveIngress({ requestTimeoutMs: TIMEOUT_MS })
  const release = ingress.stager.hold()
  const connection = new RawConnection(ingress.port)
  connection.write(Buffer.concat([post, Buffer.from('POST /v1/traces HTTP/1.1\r\nX-Slow: ')]))
  await ingress.stager.whenAppended(1)
  setTimeout(release, 2 * TIMEOUT_MS)
  await drip(connection, 'x')
  expect(statuses(connection.received)).toEqual([200])
})

test('a thousand slow senders are all cut off, and give back what they held, while a good one is served', async () => {
  await using ingress = await serveIngress({ requestTimeoutMs: TIMEOUT_MS })
  const slow = Array.from({ length: 1_000 }, () =>
    new RawConnection(ingress.port).write(head('Content-Length: 100000')).write(Buffer.alloc(1_000)),
  )
  const good = new RawConnection(ingress.port)
  await good.write(post).until(/200 OK/)
  await Promise.all(slow.map((connection) => connection.until(/^HTTP\/1\.1 503 /)))
  expect(ingress.budget.usedBytes).toBe(0)
  await good.write(post).until(/200 OK[\s\S]*200 OK/)
  for (const { socket } of [...slow, good]) socket.destroy()
})
