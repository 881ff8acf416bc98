import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'

/** A server on a loopback port, with every connection that it has accepted and not seen closed. */
export interface FakeServer extends AsyncDisposable {
  endpoint: URL
  connections: Set<net.Socket>
  /** How many connections there have been. */
  accepted(): number
  /** Resolves when the last open connection is closed. */
  allClosed(): Promise<void>
}

async function listening(server: net.Server): Promise<FakeServer> {
  const connections = new Set<net.Socket>()
  let accepted = 0
  server.on('connection', (socket) => {
    accepted += 1
    connections.add(socket)
    // Whoever resets a connection is what some tests are about.
    socket.on('error', () => socket.destroy())
    socket.once('close', () => connections.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  return {
    endpoint: new URL(`http://127.0.0.1:${port}`),
    connections,
    accepted: () => accepted,
    async allClosed() {
      const closed = (socket: net.Socket) => new Promise((resolve) => socket.once('close', resolve))
      await Promise.all(Array.from(connections, closed))
    },
    async [Symbol.asyncDispose]() {
      for (const socket of connections) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** An S3 server that has every bucket, and answers other requests as `answer` says, after reading them to the end. */
export function fakeS3(
  answer: (request: http.IncomingMessage, response: http.ServerResponse) => void,
): Promise<FakeServer> {
  const server = http.createServer((request, response) => {
    request.resume().once('end', () => {
      if (isBucketHead(request.method, request.url)) response.writeHead(200, { 'content-length': 0 }).end()
      else answer(request, response)
    })
  })
  return listening(server)
}

/** As `fakeS3`, but what follows the head of a request that is not for the bucket is up to `take`. */
export function rawS3(take: (socket: net.Socket) => void): Promise<FakeServer> {
  const server = net.createServer((socket) => {
    let head = ''
    const read = (chunk: Buffer) => {
      head += chunk.toString('latin1')
      const end = head.indexOf('\r\n\r\n')
      if (end < 0) return
      const [method, url] = head.split(' ', 2)
      head = head.slice(end + 4)
      if (isBucketHead(method, url)) {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
        return
      }
      socket.off('data', read)
      take(socket)
    }
    socket.on('data', read)
  })
  return listening(server)
}

function isBucketHead(method?: string, url?: string): boolean {
  return method === 'HEAD' && /^\/[^/]+$/.test(url ?? '')
}

/** Passes bytes to and from `target`; the answer to each of the first `lost` requests that begin so is lost. */
export function losingProxy(target: URL, beginning: string, lost: number): Promise<FakeServer> {
  const server = net.createServer((near) => {
    const far = net.connect(Number(target.port), target.hostname)
    let losing = false
    near.on('data', (chunk) => {
      const text = chunk.toString('latin1', 0, beginning.length + 8)
      if (/^[A-Z]+ \//.test(text)) losing = lost > 0 && text.startsWith(beginning)
      far.write(chunk)
    })
    far.on('data', (chunk) => {
      if (!losing) return near.write(chunk)
      lost -= 1
      near.destroy()
    })
    far.on('error', () => near.destroy())
    far.on('close', () => near.destroy())
    near.on('close', () => far.destroy())
  })
  return listening(server)
}

/** An S3 error document. */
export function errorDocument(code: string, message = `this is ${code}`): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${message}</Message></Error>`
}
