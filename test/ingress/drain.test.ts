import { expect, test } from 'vitest'
import { head, oneSpan, RawConnection, send, serveIngress } from './serve.ts'

const request = Buffer.concat([Buffer.from(head(`Content-Length: ${oneSpan.length}`)), oneSpan])
const never = new AbortController().signal

test('requests in hand are answered, new ones get 503 and Connection: close, then nobody listens', async () => {
  await using ingress = await serveIngress()
  const release = ingress.stager.hold()
  const inHand = Array.from({ length: 5 }, () => new RawConnection(ingress.port).write(request))
  await ingress.stager.whenAppended(5)
  const stopped = ingress.http.stop(never)
  expect(ingress.http.draining).toBe(true)

  const late = await send(ingress.port, { body: oneSpan })
  expect([late.status, late.headers.connection]).toEqual([503, 'close'])
  expect(late.headers['retry-after']).toMatch(/^[1-5]$/)

  release()
  await stopped
  for (const connection of inHand) {
    await connection.closed
    expect(connection.received.startsWith('HTTP/1.1 200 OK\r\n')).toBe(true)
    expect(connection.received.includes('Connection: close')).toBe(true)
  }
  expect(ingress.stager.rows.length).toBe(5)
  await expect(send(ingress.port, { body: oneSpan })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
})

test('idle connections are closed, and half-open ones do not hold the stop up', async () => {
  await using ingress = await serveIngress()
  const idle = new RawConnection(ingress.port).write(request)
  await idle.until(/200 OK/)
  const silent = new RawConnection(ingress.port)
  const half = new RawConnection(ingress.port).write('POST /v1/tr')
  await Promise.all([silent.opened, half.opened])
  await ingress.http.stop(never)
  await Promise.all([idle.closed, silent.closed, half.closed])
})

test('an upload that never ends is waited for until the grace is over, then cut', async () => {
  await using ingress = await serveIngress()
  const upload = new RawConnection(ingress.port).write(head('Content-Length: 1000')).write('x')
  await expect.poll(() => ingress.budget.usedBytes).toBe(1)
  const giveUp = new AbortController()
  const stopped = ingress.http.stop(giveUp.signal)
  giveUp.abort()
  await stopped
  await upload.closed
  await expect.poll(() => ingress.budget.usedBytes).toBe(0)
})

test('a stop without a start resolves, and a second stop is the first', async () => {
  const { HttpIngress } = await import('../../src/ingress/http.ts')
  await using ingress = await serveIngress()
  expect(ingress.http.stop(never)).toBe(ingress.http.stop(never))
  await ingress.http.stop(never)
  const unstarted = new HttpIngress({ ...({} as ConstructorParameters<typeof HttpIngress>[0]), signals: [] })
  await unstarted.stop(never)
})

test('a port that is taken is a sentence about the configuration', async () => {
  await using ingress = await serveIngress()
  await expect(serveIngress({ port: ingress.port })).rejects.toMatchObject({
    kind: 'configuration',
    code: 'EADDRINUSE',
    message: `cannot listen for OTLP/HTTP on 127.0.0.1:${ingress.port}: listen EADDRINUSE: address already in use 127.0.0.1:${ingress.port}`,
  })
})
