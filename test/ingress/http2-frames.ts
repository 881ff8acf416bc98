import { createConnection, type Socket } from 'node:net'

/** Types of frames (RFC 9113, section 6). */
export const frameTypes = {
  data: 0,
  headers: 1,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const

/** Flags of frames; what a bit means depends on the type. */
export const flags = { endStream: 1, ack: 1, endHeaders: 4 } as const

/** What a client's connection begins with (RFC 9113, section 3.4). */
export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

/** One frame as it came. */
export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

/** A frame as it is sent (RFC 9113, section 4.1). */
export function frameOf(
  type: number,
  flagBits: number,
  stream: number,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flagBits
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** A block of headers whose fields are literals that leave the dynamic table alone (RFC 7541, section 6.2.2). */
export function headerBlock(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(
    fields.flatMap(([name, value]) => [Buffer.of(0), hpackString(name), hpackString(value)]),
  )
}

/** A string that is not Huffman coded (RFC 7541, section 5.2). */
export function hpackString(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  return Buffer.concat([hpackInteger(bytes.length, 7), bytes])
}

/** An integer in a prefix of so many bits whose other bits are 0 (RFC 7541, section 5.1). */
export function hpackInteger(value: number, prefixBits: number, otherBits = 0): Buffer {
  const full = 2 ** prefixBits - 1
  if (value < full) return Buffer.of(otherBits | value)
  const bytes = [otherBits | full]
  let left = value - full
  for (; left >= 128; left = Math.floor(left / 128)) bytes.push((left % 128) | 128)
  return Buffer.from([...bytes, left])
}

/** The headers of an export of traces. */
export function exportHeaders(...more: (readonly [string, string])[]): Buffer {
  return headerBlock([
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', '/opentelemetry.proto.collector.trace.v1.TraceService/Export'],
    [':authority', 'localhost'],
    ['content-type', 'application/grpc'],
    ['te', 'trailers'],
    ...more,
  ])
}

/** The payload of SETTINGS (RFC 9113, section 6.5). */
export function settingsPayload(settings: Readonly<Record<number, number>>): Buffer {
  const entries = Object.entries(settings)
  const payload = Buffer.alloc(6 * entries.length)
  for (const [index, [id, value]] of entries.entries()) {
    payload.writeUInt16BE(Number(id), 6 * index)
    payload.writeUInt32BE(value, 6 * index + 2)
  }
  return payload
}

/** The largest frame that every receiver takes (RFC 9113, section 6.5.2). */
const FRAME_BYTES_MAX = 16_384

/** A block of headers as HEADERS and as many frames of CONTINUATION as it takes. */
export function headerFrames(stream: number, block: Buffer): Buffer[] {
  const frames: Buffer[] = []
  for (let at = 0; at < block.length; at += FRAME_BYTES_MAX) {
    const type = at === 0 ? frameTypes.headers : frameTypes.continuation
    const isLast = at + FRAME_BYTES_MAX >= block.length
    const part = block.subarray(at, at + FRAME_BYTES_MAX)
    frames.push(frameOf(type, isLast ? flags.endHeaders : 0, stream, part))
  }
  return frames
}

/** A body as frames of DATA. */
export function dataFrames(stream: number, body: Buffer, end: boolean): Buffer[] {
  const frames: Buffer[] = []
  for (let at = 0; at === 0 || at < body.length; at += FRAME_BYTES_MAX) {
    const isLast = end && at + FRAME_BYTES_MAX >= body.length
    const part = body.subarray(at, at + FRAME_BYTES_MAX)
    frames.push(frameOf(frameTypes.data, isLast ? flags.endStream : 0, stream, part))
  }
  return frames
}

/** A connection that sends the frames it is told to, acknowledges SETTINGS, and keeps what came. */
export class FrameConnection implements AsyncDisposable {
  readonly socket: Socket
  /** Resolves when the other side has ended the connection, in whatever way. */
  readonly closed: Promise<void>
  readonly frames: Frame[] = []
  #rest: Buffer = Buffer.alloc(0)
  #changed = Promise.withResolvers<void>()

  /** Opens a connection and, unless told otherwise, sends the preface and empty SETTINGS. */
  constructor(port: number, { begin = true }: { begin?: boolean } = {}) {
    this.socket = createConnection({ host: '127.0.0.1', port })
    this.socket.setNoDelay(true)
    this.socket.on('data', (chunk: Buffer) => this.#take(chunk))
    this.socket.on('error', () => undefined)
    this.closed = new Promise((resolve) => {
      this.socket.on('close', () => {
        resolve()
        this.#notify()
      })
    })
    if (begin) this.write(preface, frameOf(frameTypes.settings, 0, 0))
  }

  write(...bytes: Buffer[]): this {
    if (!this.socket.destroyed) this.socket.write(Buffer.concat(bytes))
    return this
  }

  /** Writes and resolves when the kernel has taken all of it, or the connection is gone. */
  async flush(...bytes: Buffer[]): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.socket.write(Buffer.concat(bytes), () => resolve())
    await Promise.race([promise, this.closed])
  }

  /** Begins a call: HEADERS, and the body if there is one, in frames of DATA as large as they may be. */
  beginExport(stream: number, body?: Buffer, { end = body !== undefined } = {}): this {
    this.write(frameOf(frameTypes.headers, flags.endHeaders, stream, exportHeaders()))
    if (body !== undefined) this.write(...dataFrames(stream, body, end))
    return this
  }

  /** The first frame that `wanted` picks, as soon as it has come; throws when the connection ends before. */
  async until(wanted: (frame: Frame) => boolean): Promise<Frame> {
    for (;;) {
      const found = this.frames.find(wanted)
      if (found !== undefined) return found
      if (this.socket.destroyed) {
        const types = this.frames.map(
          ({ type, payload }) => `${type}:${payload.toString('hex').slice(0, 40)}`,
        )
        throw new Error(`the connection ended with the frames ${types.join(' ')}`)
      }
      await this.#changed.promise
    }
  }

  /** Sends a PING and resolves when it was answered. */
  async ping(opaque = 'opaque!!'): Promise<void> {
    const payload = Buffer.from(opaque.padEnd(8).slice(0, 8))
    this.write(frameOf(frameTypes.ping, 0, 0, payload))
    await this.until(
      (frame) => frame.type === frameTypes.ping && frame.flags === flags.ack && frame.payload.equals(payload),
    )
  }

  /** The error code of the GOAWAY that came last; undefined without one. */
  get goawayCode(): number | undefined {
    return this.frames.findLast(({ type }) => type === frameTypes.goaway)?.payload.readUInt32BE(4)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy()
    await this.closed
  }

  #take(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk])
    while (this.#rest.length >= 9) {
      const length = this.#rest.readUIntBE(0, 3)
      if (this.#rest.length < 9 + length) break
      const [type, flagBits] = this.#rest.subarray(3, 5) as unknown as [number, number]
      const payload = this.#rest.subarray(9, 9 + length)
      this.frames.push({ type, flags: flagBits, stream: this.#rest.readUInt32BE(5), payload })
      if (type === frameTypes.settings && flagBits === 0)
        this.write(frameOf(frameTypes.settings, flags.ack, 0))
      this.#rest = this.#rest.subarray(9 + length)
    }
    this.#notify()
  }

  #notify(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }
}
