import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import type { DatabaseLocation } from '../../src/postgres/location.ts'

/** A TCP server on loopback, with a location that leads to it. `close` ends its connections. */
export async function listen(
  onConnection: (socket: Socket) => void,
  like: DatabaseLocation,
): Promise<{ location: DatabaseLocation; close: () => Promise<void> }> {
  const open = new Set<Socket>()
  const server = createServer((socket) => {
    open.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => open.delete(socket))
    onConnection(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('not listening on TCP')
  return {
    location: { ...like, host: '127.0.0.1', port: address.port },
    close: async () => {
      for (const socket of open) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** One message of the server (PostgreSQL documentation, 54.7 "Message Formats"). */
export function message(letter: string, body: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(5)
  head.write(letter)
  head.writeUInt32BE(4 + body.length, 1)
  return Buffer.concat([head, body])
}

const int32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}
const int16 = (value: number) => int32(value).subarray(2)

/** AuthenticationOk, BackendKeyData and ReadyForQuery. */
export const welcome = Buffer.concat([
  message('R', int32(0)),
  message('K', Buffer.concat([int32(1), int32(2)])),
  message('Z', Buffer.from('I')),
])

/** The whole answer to a simple query whose columns are text. */
export function answer(rows: readonly (readonly string[])[], names: readonly string[]): Buffer {
  const columns = names.map((name) =>
    Buffer.concat([Buffer.from(`${name}\0`), int32(0), int16(0), int32(25), int16(-1), int32(-1), int16(0)]),
  )
  const data = rows.map((row) =>
    message(
      'D',
      Buffer.concat([
        int16(row.length),
        ...row.flatMap((text) => [int32(Buffer.byteLength(text)), Buffer.from(text)]),
      ]),
    ),
  )
  return Buffer.concat([
    message('T', Buffer.concat([int16(names.length), ...columns])),
    ...data,
    message('C', Buffer.from(`SELECT ${rows.length}\0`)),
    message('Z', Buffer.from('I')),
  ])
}
