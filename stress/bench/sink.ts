import { fork } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'

const answer = 'HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n'
const headEnd = Buffer.from('\r\n\r\n')
const headBytesMax = 64 * 1024

/**
 * What the Collector exports to: an HTTP server in a process of its own that reads requests with a Content-Length, answers
 * 200 and counts. It does as little as it can, so that what is compared is not slowed down by it.
 */
export class Sink {
  readonly url: URL
  readonly pid: number
  readonly #child: ReturnType<typeof fork>

  private constructor(child: ReturnType<typeof fork>, port: number) {
    this.#child = child
    this.pid = child.pid ?? 0
    this.url = new URL(`http://127.0.0.1:${port}`)
  }

  static async start(): Promise<Sink> {
    const child = fork(import.meta.filename, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    const kill = () => child.kill('SIGKILL')
    process.once('exit', kill)
    child.once('exit', () => process.off('exit', kill))
    const [port] = (await once(child, 'message')) as [number]
    return new Sink(child, port)
  }

  /** Requests answered so far. */
  async requests(): Promise<number> {
    const answered = once(this.#child, 'message')
    this.#child.send('count')
    const [count] = (await answered) as [number]
    return count
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, 'exit')
    this.#child.disconnect()
    await ended
  }
}

function serve(): void {
  let requests = 0
  const server = net.createServer({ noDelay: true }, (socket) => {
    let head: Buffer = Buffer.alloc(0)
    let bodyBytesLeft = 0
    socket.on('data', (chunk) => {
      let rest: Buffer = chunk
      while (rest.length > 0) {
        if (bodyBytesLeft > 0) {
          const taken = Math.min(bodyBytesLeft, rest.length)
          bodyBytesLeft -= taken
          rest = rest.subarray(taken)
        } else {
          head = head.length === 0 ? rest : Buffer.concat([head, rest])
          const end = head.indexOf(headEnd)
          if (end === -1) {
            if (head.length > headBytesMax) socket.destroy()
            return
          }
          bodyBytesLeft = contentLength(head.toString('latin1', 0, end))
          rest = head.subarray(end + headEnd.length)
          head = Buffer.alloc(0)
        }
        if (bodyBytesLeft === 0 && head.length === 0) {
          requests++
          socket.write(answer)
        }
      }
    })
    // The other side may end at any moment.
    socket.on('error', () => socket.destroy())
  })
  server.listen(0, '127.0.0.1', () => process.send?.((server.address() as net.AddressInfo).port))
  process.on('message', () => process.send?.(requests))
  process.on('disconnect', () => process.exit(0))
}

function contentLength(head: string): number {
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1]
  if (length === undefined) throw new Error(`a request without a Content-Length:\n${head}`)
  return Number(length)
}

if (import.meta.main) serve()
