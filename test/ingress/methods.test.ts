import { expect, test } from 'vitest'
import { head, oneSpan, PROTOBUF, RawConnection, send, serveIngress } from './serve.ts'

const post = Buffer.concat([Buffer.from(head(`Content-Length: ${oneSpan.length}`)), oneSpan])
const never = new AbortController().signal

test('HEAD is answered as GET is, without a body, and the connection serves on', async () => {
  await using ingress = await serveIngress()
  const answers = []
  for (const path of ['/v1/traces', '/nope']) {
    const get = await send(ingress.port, { method: 'GET', path, headers: {} })
    const ours = { ...get.headers, 'x-request-id': '', connection: '', date: '' }
    const asked = await send(ingress.port, { method: 'HEAD', path, headers: {} })
    const theirs = { ...asked.headers, 'x-request-id': '', connection: '', date: '' }
    expect([asked.status, theirs, asked.body.length]).toEqual([get.status, ours, 0])
    answers.push(asked.status)
  }
  expect(answers).toEqual([405, 404])

  const connection = new RawConnection(ingress.port)
  connection.write('HEAD /v1/traces HTTP/1.1\r\nHost: a\r\n\r\n')
  await connection.until(/^HTTP\/1\.1 405 [\s\S]*\r\n\r\n$/)
  await connection.write(post).until(/\r\n\r\nHTTP\/1\.1 200 /)
  connection.socket.destroy()
})

test('HEAD with a body is answered, and the connection serves on', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  connection.write('HEAD /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello')
  await connection.until(/^HTTP\/1\.1 405 [\s\S]*\r\n\r\n$/)
  await connection.write(post).until(/\r\n\r\nHTTP\/1\.1 200 /)
  connection.socket.destroy()
})

test('OPTIONS says with 204 what may be sent, on each path and for the whole server, and nothing else', async () => {
  await using ingress = await serveIngress()
  const answers = []
  for (const path of ['/v1/traces', '/v1/metrics', '/v1/logs', '*', '/nope']) {
    const { status, headers, body } = await send(ingress.port, { method: 'OPTIONS', path, headers: {} })
    answers.push([path, status, headers.allow, headers['content-length'], body.length > 0])
    expect([headers['access-control-allow-origin'], headers.vary]).toEqual([undefined, undefined])
  }
  expect(answers).toEqual([
    ['/v1/traces', 204, 'OPTIONS, POST', undefined, false],
    ['/v1/metrics', 204, 'OPTIONS, POST', undefined, false],
    ['/v1/logs', 204, 'OPTIONS, POST', undefined, false],
    ['*', 204, 'OPTIONS, POST', undefined, false],
    ['/nope', 404, undefined, expect.any(String), true],
  ])
})

test('OPTIONS with a body is answered, and the connection serves on', async () => {
  await using ingress = await serveIngress()
  const connection = new RawConnection(ingress.port)
  connection.write('OPTIONS /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello')
  await connection.until(/^HTTP\/1\.1 204 [\s\S]*\r\n\r\n$/)
  await connection.write(post).until(/\r\n\r\nHTTP\/1\.1 200 /)
  connection.socket.destroy()
})

test('OPTIONS is answered beyond the limit of the rate, takes nothing of it, and carries the request id', async () => {
  await using ingress = await serveIngress({ rateLimit: { perSecond: 0.001, burst: 1 } })
  const options = () => send(ingress.port, { method: 'OPTIONS', headers: { 'x-request-id': 'mine' } })
  const answers = [await options(), await send(ingress.port, { body: oneSpan }), await options()]
  expect(answers.map(({ status }) => status)).toEqual([204, 200, 204])
  expect(answers[0]?.headers['x-request-id']).toBe('mine')
})

test('while it drains OPTIONS is answered, and the connection ends', async () => {
  await using ingress = await serveIngress()
  const release = ingress.stager.hold()
  const inHand = send(ingress.port, { headers: { 'content-type': PROTOBUF }, body: oneSpan })
  await ingress.stager.whenAppended(1)
  const stopped = ingress.http.stop(never)
  const { status, headers } = await send(ingress.port, { method: 'OPTIONS', headers: {} })
  expect([status, headers.connection]).toEqual([204, 'close'])
  release()
  expect((await inHand).status).toBe(200)
  await stopped
})
