import { expect, test } from 'vitest'
import {
  chunk,
  head,
  JSON_TYPE,
  lastChunk,
  oneSpan,
  PROTOBUF,
  RawConnection,
  send,
  serveIngress,
} from './serve.ts'

const post = (body: Buffer) => Buffer.concat([Buffer.from(head(`Content-Length: ${body.length}`)), body])
const inChunks = Buffer.concat([Buffer.from(head('Transfer-Encoding: chunked')), chunk(oneSpan), lastChunk])
const statuses = (received: string) => received.match(/(?<=HTTP\/1\.1 )\d+/g)?.map(Number)

/** Sends these bytes, ends this side of the connection, and reads on. */
function sendAndEnd(port: number, bytes: Buffer | string): RawConnection {
  const connection = new RawConnection(port).write(bytes)
  connection.socket.end()
  return connection
}

for (const [form, bytes, answers] of [
  ['declared', post(oneSpan), [200]],
  ['in chunks', inChunks, [200]],
  ['two in one piece', Buffer.concat([post(oneSpan), inChunks]), [200, 200]],
] as const) {
  test(`a client that ends its side after its request (${form}) still reads the answer, then the connection ends`, async () => {
    await using ingress = await serveIngress()
    const release = ingress.stager.hold()
    const connection = sendAndEnd(ingress.port, bytes)
    await ingress.stager.whenAppended(answers.length)
    // By the answer to a later request the end of this side has come too.
    await send(ingress.port, { path: '/nope' })
    release()
    await connection.closed
    expect(statuses(connection.received)).toEqual(answers)
    expect(ingress.stager.rows.length).toBe(answers.length)
    connection.socket.destroy()
  })
}

for (const [form, start] of [
  ['declared', head('Content-Length: 1000')],
  ['in chunks', `${head('Transfer-Encoding: chunked')}3e8\r\n`],
  ['declared and large', head('Content-Length: 1000000')],
] as const) {
  test(`a client that ends its side in the middle of a body (${form}) reads 400 at once, and nothing is held`, async () => {
    await using ingress = await serveIngress()
    const startedMs = performance.now()
    const connection = sendAndEnd(ingress.port, `${start}x`)
    await connection.closed
    expect(performance.now() - startedMs).toBeLessThan(1_000)
    const [top = '', body] = connection.received.split('\r\n\r\n')
    expect(top).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    expect(top).toMatch(new RegExp(`\r\nContent-Type: ${PROTOBUF}\r\n`))
    expect(top).toMatch(/\r\nConnection: close(?:\r\n|$)/)
    expect(body).toMatch(/the connection ended in the middle of the body$/)
    expect([ingress.stager.appended, ingress.budget.usedBytes, ingress.lines()]).toEqual([0, 0, []])
    connection.socket.destroy()
  })
}

test('a body that is cut short right behind a whole request in one piece is 400 at once', async () => {
  await using ingress = await serveIngress()
  const connection = sendAndEnd(
    ingress.port,
    Buffer.concat([post(oneSpan), Buffer.from(head('Content-Length: 1000')), Buffer.alloc(10)]),
  )
  await connection.until(/HTTP\/1\.1 200 [\s\S]*HTTP\/1\.1 400 /)
  await connection.closed
  expect(ingress.budget.usedBytes).toBe(0)
  connection.socket.destroy()
})

test('a client that is gone in the middle of a body, as a process that ends is, holds nothing from then on', async () => {
  await using ingress = await serveIngress()
  const connections = Array.from({ length: 50 }, () =>
    new RawConnection(ingress.port).write(head('Content-Length: 100000')).write(Buffer.alloc(1000)),
  )
  await expect.poll(() => ingress.budget.usedBytes).toBe(50_000)
  for (const { socket } of connections) socket.destroy()
  await expect.poll(() => ingress.budget.usedBytes).toBe(0)
  expect([ingress.stager.appended, ingress.lines()]).toEqual([0, []])
})

test('a client that ends its side in the middle of a head reads 400, and the log says so once', async () => {
  await using ingress = await serveIngress()
  const connection = sendAndEnd(ingress.port, 'POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-')
  await connection.closed
  const [top = '', body = ''] = connection.received.split('\r\n\r\n')
  expect(top).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
  expect(top).toMatch(new RegExp(`\r\nContent-Type: ${JSON_TYPE}\r\n`))
  expect(JSON.parse(body)).toEqual({ code: 3, message: 'the connection ended in the middle of a request' })
  expect(ingress.lines().map(({ event, reason }) => [event, reason])).toEqual([
    ['http_malformed', 'HPE_INVALID_EOF_STATE'],
  ])
  connection.socket.destroy()
})

test('a client that ends its side in the middle of a body that was refused reads that refusal and no other', async () => {
  await using ingress = await serveIngress()
  const connection = sendAndEnd(
    ingress.port,
    'POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel',
  )
  await connection.closed
  expect(statuses(connection.received)).toEqual([404])
  expect(ingress.lines()).toEqual([])
  connection.socket.destroy()
})

test('a client that ends its side between two requests is let go', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  await connection.write(post(oneSpan)).until(/200 OK/)
  connection.socket.end()
  await connection.closed
  expect(statuses(connection.received)).toEqual([200])
  connection.socket.destroy()
})
