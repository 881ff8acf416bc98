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

test('an upload that stalls is waited for 2 s, then answered 503 and Connection: close', async () => {
  await using ingress = await serveIngress()
  const uploads = [head('Content-Length: 1000'), `${head('Transfer-Encoding: chunked')}3e8\r\n`].map(
    (start) => new RawConnection(ingress.port).write(start).write('x'),
  )
  await expect.poll(() => ingress.budget.usedBytes).toBe(2)
  const startedMs = performance.now()
  const stopped = ingress.http.stop(never)
  const answers = await Promise.all(uploads.map((upload) => upload.until(/\r\n\r\n/)))
  const answeredAfterMs = performance.now() - startedMs
  for (const answer of answers) {
    expect(answer).toMatch(/^HTTP\/1\.1 503 Service Unavailable\r\n/)
    expect(answer).toMatch(/\r\nRetry-After: [1-5]\r\n/)
    expect(answer).toMatch(/\r\nConnection: close\r\n/)
  }
  expect(answeredAfterMs).toBeGreaterThan(1_900)
  await stopped
  await Promise.all(uploads.map(({ closed }) => closed))
  expect(performance.now() - startedMs).toBeLessThan(8_000)
  expect([ingress.stager.appended, ingress.budget.usedBytes]).toEqual([0, 0])
})

test('an upload that comes whole within those 2 s is staged and answered 200', async () => {
  await using ingress = await serveIngress()
  const upload = new RawConnection(ingress.port).write(request.subarray(0, -1))
  await expect.poll(() => ingress.budget.usedBytes).toBe(oneSpan.length - 1)
  const stopped = ingress.http.stop(never)
  upload.write(request.subarray(-1))
  await upload.until(/^HTTP\/1\.1 200 OK/)
  await stopped
  expect(ingress.stager.rows.length).toBe(1)
})

test('a commit that hangs and clients that do not read hold a stop up for 8 s at most', async () => {
  await using ingress = await serveIngress()
  const release = ingress.stager.hold()
  const hanging = new RawConnection(ingress.port).write(request)
  await ingress.stager.whenAppended(1)
  const deaf = new RawConnection(ingress.port).write(head('Content-Length: 100000000')).write('x')
  deaf.socket.pause()
  await expect.poll(() => ingress.budget.usedBytes).toBe(oneSpan.length)
  const startedMs = performance.now()
  await ingress.http.stop(never)
  const tookMs = performance.now() - startedMs
  expect(tookMs).toBeGreaterThan(7_000)
  expect(tookMs).toBeLessThan(8_500)
  await hanging.closed
  expect(hanging.received).toBe('')
  deaf.socket.destroy()
  release()
})

test('when the grace is over, an upload is cut at once', async () => {
  await using ingress = await serveIngress()
  const upload = new RawConnection(ingress.port).write(head('Content-Length: 1000')).write('x')
  await expect.poll(() => ingress.budget.usedBytes).toBe(1)
  const giveUp = new AbortController()
  const startedMs = performance.now()
  const stopped = ingress.http.stop(giveUp.signal)
  giveUp.abort()
  await stopped
  await upload.closed
  await expect.poll(() => ingress.budget.usedBytes).toBe(0)
  expect(performance.now() - startedMs).toBeLessThan(1_000)
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
