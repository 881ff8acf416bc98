import type { Transform } from 'node:stream'
import zlib, { constants } from 'node:zlib'
import { freeMemory, largeBytes } from '../foundation/memory.ts'
import { OtlpError, quoted } from './error.ts'

/** A body that is larger than the limit, as it came or unpacked. */
export class BodyTooLargeError extends Error {
  readonly limitBytes: number

  constructor(limitBytes: number) {
    super(`the body has more than ${limitBytes} bytes`)
    this.name = 'BodyTooLargeError'
    this.limitBytes = limitBytes
  }
}

/** A body without its content encoding. */
export interface Unpacked {
  bytes: Buffer
  /** The body as it came, if it is gzip whose members end exactly at its last byte and may be kept as it is. */
  gzip: Buffer | undefined
}

/**
 * Bodies up to this size are unpacked where we stand, as long as no more than `unpackedAtOnceBytesMax` come out:
 * 52 µs for 48 kB of spans, where the way through libuv's threads costs more than that. Both bound how long a body
 * may hold the event loop: about 2 ms.
 */
const packedAtOnceBytesMax = 64 * 1024
const unpackedAtOnceBytesMax = 1024 * 1024
/** As for unpacking: 0.4 ms. */
const packAtOnceBytesMax = 128 * 1024

/** Each zstd frame is a call of its own, and one of no content takes nine bytes. */
const zstdFramesMax = 256
/** 32 MiB: what the encoders of SDKs and of the Collector ask for at most. */
const zstdWindowLogMin = 25

const chunkBytesMin = 16 * 1024
const chunkBytesMax = 1024 * 1024

interface Inflated {
  buffer: Buffer
  engine: { bytesWritten: number }
}

interface InflateOptions {
  info: true
  chunkSize: number
  maxOutputLength: number
  params?: Record<number, number>
}

/** One decoder of the library in its two forms. Both tell how much of the input they consumed. */
interface Decoder {
  readonly name: string
  readonly sync: (body: Buffer, options: InflateOptions) => Buffer
  readonly stream: (options: StreamOptions) => Transform & { bytesWritten: number }
}

interface StreamOptions {
  chunkSize: number
  params?: Record<number, number>
}

const gunzip: Decoder = { name: 'gzip', sync: zlib.gunzipSync, stream: zlib.createGunzip }
const inflate: Decoder = { name: 'deflate', sync: zlib.inflateSync, stream: zlib.createInflate }
const inflateRaw: Decoder = { name: 'deflate', sync: zlib.inflateRawSync, stream: zlib.createInflateRaw }
const zstd: Decoder = { name: 'zstd', sync: zlib.zstdDecompressSync, stream: zlib.createZstdDecompress }

/**
 * Takes the content encoding off a body: none, `identity`, `gzip` (all members), `deflate` (with or without the zlib
 * wrapper) or `zstd` (all frames). Every byte of the body must belong to it: what stands after the end would be
 * hidden from some readers and shown to others. A body of no bytes is one of no bytes in every encoding.
 *
 * Holds at most `limitBytes` and a chunk of what comes out.
 *
 * @throws {OtlpError} for an unknown encoding, a damaged body, or bytes after its end.
 * @throws {BodyTooLargeError} when more than `limitBytes` would come out.
 */
export async function unpack(
  contentEncoding: string | undefined,
  body: Buffer,
  limitBytes: number,
): Promise<Unpacked> {
  const encoding = contentEncoding?.trim().toLowerCase() ?? ''
  const decoder = decoderOf(encoding, body)
  if (body.length > limitBytes) throw new BodyTooLargeError(limitBytes)
  if (decoder === undefined || body.length === 0) return { bytes: body, gzip: undefined }
  const bytes = await inflateAll(decoder, body, limitBytes)
  return { bytes, gzip: decoder === gunzip ? body : undefined }
}

/**
 * The same for a short body, where we stand.
 *
 * @throws {OtlpError} for an unknown encoding, a damaged body, or bytes after its end.
 * @throws {BodyTooLargeError} when more than `limitBytes` would come out.
 */
export function unpackAtOnce(contentEncoding: string, body: Buffer, limitBytes: number): Buffer {
  const decoder = decoderOf(contentEncoding.trim().toLowerCase(), body)
  if (body.length > limitBytes) throw new BodyTooLargeError(limitBytes)
  if (decoder === undefined || body.length === 0) return body
  const bytes = inflateAtOnce(decoder, body, limitBytes)
  if (bytes === undefined) throw new BodyTooLargeError(limitBytes)
  return bytes
}

/** Whether a body of this content encoding is as it is. */
export function isIdentity(contentEncoding: string | undefined): boolean {
  return contentEncoding === undefined || /^\s*(?:identity)?\s*$/i.test(contentEncoding)
}

/** Whether `unpack` knows this content encoding. */
export function isKnownEncoding(contentEncoding: string): boolean {
  return /^\s*(?:identity|(?:x-)?gzip|deflate|zstd)?\s*$/i.test(contentEncoding)
}

/** Compresses with gzip at the fastest level (RFC 1952, one member). */
export async function pack(bytes: Buffer): Promise<Buffer> {
  if (bytes.length <= packAtOnceBytesMax) return zlib.gzipSync(bytes, { level: constants.Z_BEST_SPEED })
  return new Promise((resolve, reject) => {
    zlib.gzip(bytes, { level: constants.Z_BEST_SPEED, chunkSize: chunkBytesMax }, (error, packed) => {
      if (error === null) resolve(packed)
      else reject(error)
    })
  })
}

function decoderOf(encoding: string, body: Buffer): Decoder | undefined {
  switch (encoding) {
    case '':
    case 'identity':
      return undefined
    case 'gzip':
    case 'x-gzip':
      return gunzip
    case 'deflate':
      return hasZlibHeader(body) ? inflate : inflateRaw
    case 'zstd':
      return zstd
    default:
      throw new OtlpError(
        `the content encoding ${quoted(encoding)} is not one of gzip, deflate, zstd and identity`,
      )
  }
}

/** RFC 1950, 2.2: method 8, a window of at most 2^15, and a check over both bytes. No raw stream begins like this. */
function hasZlibHeader(body: Buffer): boolean {
  if (body.length < 2) return false
  const header = body.readUInt16BE(0)
  return (header & 0x0f00) === 0x0800 && header >>> 12 <= 7 && header % 31 === 0
}

async function inflateAll(decoder: Decoder, body: Buffer, limitBytes: number): Promise<Buffer> {
  if (body.length <= packedAtOnceBytesMax) {
    const atOnceMax = Math.min(limitBytes, unpackedAtOnceBytesMax)
    const bytes = inflateAtOnce(decoder, body, atOnceMax)
    if (bytes !== undefined) return bytes
    if (atOnceMax === limitBytes) throw new BodyTooLargeError(limitBytes)
  }
  const output = new Output(limitBytes)
  try {
    let at = start(decoder, body, 0, 0)
    for (let parts = 1; at < body.length; parts++) {
      const consumedBytes = await inflateInto(output, decoder, body.subarray(at))
      at = start(decoder, body, at + consumedBytes, parts)
    }
    return output.bytes()
  } catch (thrown) {
    output.free()
    throw thrown
  }
}

/** Undefined when more than `limitBytes` come out. */
function inflateAtOnce(decoder: Decoder, body: Buffer, limitBytes: number): Buffer | undefined {
  const parts: Buffer[] = []
  let produced = 0
  let at = start(decoder, body, 0, 0)
  while (at < body.length) {
    const rest = at === 0 ? body : body.subarray(at)
    let inflated: Inflated
    try {
      inflated = decoder.sync(
        rest,
        inflateOptions(decoder, rest, limitBytes - produced),
      ) as unknown as Inflated
    } catch (error) {
      if (isTooLarge(error)) return undefined
      throw damaged(decoder, error)
    }
    parts.push(inflated.buffer)
    produced += inflated.buffer.length
    if (produced > limitBytes) return undefined
    at = start(decoder, body, at + inflated.engine.bytesWritten, parts.length)
  }
  return joined(parts)
}

/**
 * What comes out of a large body: the first chunk of the first decoder, as large as all that may come, so that no byte is
 * copied and its memory is mapped where the decoder works, beside the event loop. Later parts are copied to its end.
 */
class Output {
  readonly limitBytes: number
  #memory: Buffer = Buffer.alloc(0)
  #producedBytes = 0

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
  }

  get isEmpty(): boolean {
    return this.#producedBytes === 0
  }

  get remainingBytes(): number {
    return this.limitBytes - this.#producedBytes
  }

  /** @throws {BodyTooLargeError} */
  add(chunk: Buffer): void {
    const isFirst = this.isEmpty
    if (isFirst) this.#memory = Buffer.from(chunk.buffer, chunk.byteOffset)
    const at = this.#producedBytes
    this.#producedBytes += chunk.length
    if (this.#producedBytes > this.limitBytes) throw new BodyTooLargeError(this.limitBytes)
    if (chunk.buffer === this.#memory.buffer) return
    chunk.copy(this.#memory, at)
    // The decoder goes on in the memory of a chunk that it has not filled.
    if (chunk.length === chunk.buffer.byteLength) freeMemory(chunk)
  }

  bytes(): Buffer {
    return this.#memory.subarray(0, this.#producedBytes)
  }

  free(): void {
    freeMemory(this.#memory)
  }
}

/** Unpacks one part of a body, and tells how much of it that was. */
function inflateInto(output: Output, decoder: Decoder, body: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    const { chunkSize, params } = inflateOptions(decoder, body, output.remainingBytes)
    const stream = decoder.stream({
      chunkSize: output.isEmpty ? largeBytes(output.limitBytes + 1) : chunkSize,
      ...(params && { params }),
    })
    stream.on('data', (chunk: Buffer) => {
      try {
        output.add(chunk)
      } catch (error) {
        stream.destroy()
        reject(error)
      }
    })
    stream.on('error', (error) => reject(damaged(decoder, error)))
    stream.on('end', () => {
      // One that is left with input would keep its state until it is collected.
      stream.destroy()
      resolve(stream.bytesWritten)
    })
    stream.end(body)
  })
}

/**
 * Where the next part of the body starts, `at` being the end of the one before: the body's end, except for zstd,
 * of which the library decodes one frame a call and knows no skippable ones (RFC 8878, 3.1).
 */
function start(decoder: Decoder, body: Buffer, at: number, parts: number): number {
  if (decoder === zstd) {
    at = afterSkippableFrames(body, at)
    if (parts === zstdFramesMax && at < body.length) {
      throw new OtlpError(`the zstd body has more than ${zstdFramesMax} frames`)
    }
    return at
  }
  if (parts > 0 && at < body.length) {
    throw new OtlpError(`the ${decoder.name} body ends after ${at} of its ${body.length} bytes`)
  }
  return at
}

function afterSkippableFrames(body: Buffer, at: number): number {
  while (body.length - at >= 4 && (body.readUInt32LE(at) & 0xfffffff0) >>> 0 === 0x184d2a50) {
    const end = body.length - at >= 8 ? at + 8 + body.readUInt32LE(at + 4) : Number.POSITIVE_INFINITY
    if (end > body.length) throw new OtlpError('the zstd body is cut off in a skippable frame')
    at = end
  }
  return at
}

function inflateOptions(decoder: Decoder, body: Buffer, maxOutputLength: number): InflateOptions {
  const options: InflateOptions = {
    info: true,
    chunkSize: chunkSize(decoder, body, maxOutputLength),
    // The library takes no 0; the caller counts what came out.
    maxOutputLength: Math.max(maxOutputLength, 1),
  }
  if (decoder === zstd) {
    const windowLog = Math.min(31, Math.max(zstdWindowLogMin, Math.ceil(Math.log2(maxOutputLength + 1))))
    options.params = { [constants.ZSTD_d_windowLogMax]: windowLog }
  }
  return options
}

/**
 * One chunk for all that comes out saves half of the time (52 µs instead of 103 for 48 kB): gzip ends with the length
 * of its last member. Nobody has to tell the truth there, so it is bounded by what may be expected of the body.
 */
function chunkSize(decoder: Decoder, body: Buffer, maxOutputLength: number): number {
  const told =
    decoder === gunzip && body.length >= 4 ? body.readUInt32LE(body.length - 4) + 1 : body.length * 8
  return Math.max(chunkBytesMin, Math.min(told, body.length * 32, maxOutputLength + 1, chunkBytesMax))
}

function joined(parts: Buffer[]): Buffer {
  const [first] = parts
  return parts.length === 1 && first !== undefined ? first : Buffer.concat(parts)
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

function isTooLarge(error: unknown): boolean {
  return codeOf(error) === 'ERR_BUFFER_TOO_LARGE'
}

/** The sender's fault when the library found the bytes wrong; a lack of memory is not. */
function damaged(decoder: Decoder, error: unknown): unknown {
  const code = codeOf(error)
  if (!/^(Z|ZSTD)_/.test(code) || /mem/i.test(code)) return error
  return new OtlpError(`the body is not ${decoder.name}: ${(error as Error).message}`)
}
