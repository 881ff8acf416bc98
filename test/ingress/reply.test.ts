import { once } from 'node:events'
import http from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { reply } from '../../src/ingress/reply.ts'

const refusal = {
  status: 503,
  contentType: 'application/json',
  requestId: 'r',
  body: Buffer.from('{}'),
  retryAfterSeconds: 1,
}

it.each([
  { name: 'a long rest, after which the connection ends', bytes: 8 * 1024 ** 2, close: false },
  { name: 'a short rest, after which the connection goes on', bytes: 200 * 1024, close: false },
  { name: 'a short rest, of a connection that is to end', bytes: 200 * 1024, close: true },
])('the memory of a refused upload is given back as it comes: $name', async ({ bytes, close }) => {
  const pieces: { piece: Buffer; bytes: number }[] = []
  const server = http.createServer((incoming, outgoing) => {
    incoming.on('data', (piece: Buffer) => pieces.push({ piece, bytes: piece.length }))
    incoming.pause()
    void reply(incoming, outgoing, { ...refusal, close }, systemClock)
  })
  onTestFinished(() => void server.close())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  socket.on('error', () => undefined)
  socket.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${bytes}\r\n\r\n`)
  const [answer] = await once(socket, 'data')
  expect(String(answer)).toMatch(/^HTTP\/1.1 503 /)
  socket.write(Buffer.alloc(bytes, 1))
  await expect.poll(() => pieces.reduce((sum, piece) => sum + piece.bytes, 0)).toBe(bytes)
  const large = pieces.filter((piece) => piece.bytes > 32 * 1024)
  expect(large.length).toBeGreaterThan(0)
  expect(large.filter(({ piece }) => piece.length > 0)).toEqual([])
})
