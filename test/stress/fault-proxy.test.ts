import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { FaultProxy, type FaultProxyOptions } from '../../stress/faults/proxy.ts'
import { S3Answers } from '../../stress/faults/s3-answers.ts'
import { seededRandom } from '../../stress/seeded-random.ts'

const opened: { close: () => unknown }[] = []

afterEach(() => {
  for (const one of opened.splice(0).reverse()) one.close()
})

/** A server that says everything back, behind a proxy, and what the server has seen. */
async function echo(options: Partial<FaultProxyOptions> = {}) {
  const seen = { bytes: [] as Buffer[], events: [] as string[] }
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('data', (chunk) => {
      seen.bytes.push(chunk)
      socket.write(chunk)
    })
    socket.on('end', () => {
      seen.events.push('end')
      socket.end('bye')
    })
    socket.on('error', ({ code }: NodeJS.ErrnoException) => seen.events.push(code ?? 'error'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  const target = { host: '127.0.0.1', port }
  const proxy = await FaultProxy.start({ target, random: seededRandom(1), ...options })
  opened.push(server, { close: () => proxy.stop() })
  return { proxy, seen }
}

/** A client that keeps what it is told. */
async function connect(proxy: FaultProxy) {
  const heard = { text: '', events: [] as string[] }
  const socket = net.connect({ host: '127.0.0.1', port: proxy.port, allowHalfOpen: true })
  socket.on('data', (chunk) => {
    heard.text += chunk.toString('latin1')
  })
  socket.on('end', () => heard.events.push('end'))
  socket.on('error', ({ code }: NodeJS.ErrnoException) => heard.events.push(code ?? 'error'))
  opened.push({ close: () => socket.destroy() })
  await once(socket, 'connect')
  return { socket, heard }
}

test('without a fault everything passes both ways, and each end in good order', async () => {
  const { proxy, seen } = await echo()
  const { socket, heard } = await connect(proxy)
  const sent = 'x'.repeat(500_000)
  socket.end(sent)
  await expect.poll(() => heard.events).toEqual(['end'])
  expect(heard.text).toBe(`${sent}bye`)
  expect(seen.events).toEqual(['end'])
  await expect.poll(() => proxy.connections).toBe(0)
})

test('what is held arrives when it is let go, in its order, in the direction that was held', async () => {
  const { proxy, seen } = await echo()
  const { socket, heard } = await connect(proxy)
  proxy.set({ kind: 'answers held' })
  socket.write('one')
  await expect.poll(() => Buffer.concat(seen.bytes).toString()).toBe('one')
  expect(heard.text).toBe('')
  proxy.set({ kind: 'requests held' })
  socket.write('two')
  await expect.poll(() => heard.text).toBe('one')
  expect(Buffer.concat(seen.bytes).toString()).toBe('one')
  proxy.set({ kind: 'open' })
  await expect.poll(() => heard.text).toBe('onetwo')
})

test('what comes after a pause is delayed', async () => {
  const { proxy } = await echo()
  const { socket, heard } = await connect(proxy)
  proxy.set({ kind: 'slow', delayMs: 150 })
  const startedMs = performance.now()
  socket.write('late')
  await expect.poll(() => heard.text).toBe('late')
  expect(performance.now() - startedMs).toBeGreaterThan(149)
})

test('a reset reaches both sides as one, and while it refuses each new connection too', async () => {
  const { proxy, seen } = await echo()
  const { socket, heard } = await connect(proxy)
  socket.write('x')
  await expect.poll(() => heard.text).toBe('x')
  proxy.set({ kind: 'refused' })
  await expect.poll(() => heard.events).toEqual(['ECONNRESET'])
  await expect.poll(() => seen.events).toEqual(['ECONNRESET'])
  await expect(connect(proxy).then(({ socket }) => once(socket, 'data'))).rejects.toMatchObject({
    code: 'ECONNRESET',
  })
  proxy.set({ kind: 'open' })
  const third = await connect(proxy)
  third.socket.write('y')
  await expect.poll(() => third.heard.text).toBe('y')
})

test('half-closed to the client, the client hears an end and the server goes on hearing the client', async () => {
  const { proxy, seen } = await echo()
  const { socket, heard } = await connect(proxy)
  socket.write('x')
  await expect.poll(() => heard.text).toBe('x')
  proxy.end('half-closed', 'to client')
  await expect.poll(() => heard.events).toEqual(['end'])
  socket.write('y')
  await expect.poll(() => Buffer.concat(seen.bytes).toString()).toBe('xy')
  expect(heard.text).toBe('x')
})

test('garbled bytes are as many as before, and the same ones for the same seed', async () => {
  const garbled: string[] = []
  for (let i = 0; i < 2; i++) {
    const { proxy } = await echo()
    proxy.set({ kind: 'garbled', direction: 'to client', bytesBetween: 20 })
    const { socket, heard } = await connect(proxy)
    socket.write('a'.repeat(1_000))
    await expect.poll(() => heard.text.length).toBe(1_000)
    garbled.push(heard.text)
  }
  const wrong = [...(garbled[0] ?? '')].filter((letter) => letter !== 'a').length
  expect(wrong).toBeGreaterThan(20)
  expect(wrong).toBeLessThan(100)
  expect(garbled[1]).toBe(garbled[0])
})

test('a connection that is to end does so after at most the bytes allowed', async () => {
  const { proxy, seen } = await echo()
  proxy.set({ kind: 'ended', direction: 'to server', bytesMax: 100, how: 'reset' })
  const { socket, heard } = await connect(proxy)
  socket.write('a'.repeat(1_000))
  await expect.poll(() => heard.events).toEqual(['ECONNRESET'])
  expect(Buffer.concat(seen.bytes).length).toBeLessThanOrEqual(100)
})

test('the answer that is wanted is lost, and those before and after it are not', async () => {
  // What this server says back reads as a request and as the answer to it.
  const watch = () => {
    const answers = new S3Answers()
    return {
      request: () => answers.request(Buffer.from('PUT /bucket/key HTTP/1.1\r\n')),
      answer: (chunk: Buffer) => answers.answer(chunk),
    }
  }
  const { proxy, seen } = await echo({ watch })
  const { socket, heard } = await connect(proxy)
  const lost = proxy.loseAnswers({ wanted: (name) => name === 'PUT /bucket/key 200', count: 1 })
  socket.write('HTTP/1.1 503 no')
  await expect.poll(() => heard.text).toBe('HTTP/1.1 503 no')
  socket.write('HTTP/1.1 200 yes')
  await lost.done
  await expect.poll(() => heard.events).toEqual(['ECONNRESET'])
  expect(heard.text).toBe('HTTP/1.1 503 no')
  expect(Buffer.concat(seen.bytes).toString()).toContain('HTTP/1.1 200 yes')
  const next = await connect(proxy)
  next.socket.write('HTTP/1.1 200 yes')
  await expect.poll(() => next.heard.text).toBe('HTTP/1.1 200 yes')
  expect(lost.count).toBe(1)
})

test('a request that is held up arrives whole though its client has gone, and only then is it answered', async () => {
  const watch = () => new S3Answers()
  const { proxy, seen } = await echo({ watch })
  const { socket, heard } = await connect(proxy)
  const late = proxy.delayRequests((name) => name === 'PUT /bucket/late')
  const request = `PUT /bucket/late HTTP/1.1\r\n\r\n${'x'.repeat(100_000)}`
  socket.write(request)
  await expect.poll(() => late.names).toEqual(['PUT /bucket/late'])
  const other = await connect(proxy)
  other.socket.write('PUT /bucket/other HTTP/1.1\r\n\r\n')
  await expect.poll(() => other.heard.text).toContain('/bucket/other')
  await wait(50)
  socket.resetAndDestroy()
  await wait(50)
  expect(heard.text).toBe('')
  expect(Buffer.concat(seen.bytes).toString()).not.toContain('/bucket/late')
  const answers = late.deliver()
  await expect.poll(() => Buffer.concat(seen.bytes).toString()).toContain(request)
  // It says back what it was told, which is no answer of S3.
  await proxy.stop()
  expect(await answers).toEqual(['PUT /bucket/late without an answer'])
})
