import { constants, crc32, deflateRawSync } from 'node:zlib'
import { markerLength } from './generator.ts'
import { encodeRequest, type StressSignal } from './otlp-messages.ts'

/** An export request of which many copies can be sent, each with a marker of its own. */
export interface BodyTemplate {
  readonly signal: StressSignal
  readonly contentType: 'application/x-protobuf' | 'application/json'
  readonly encoding: 'identity' | 'gzip'
  readonly items: number
  /** The bytes that all copies begin with, before compression. */
  readonly common: Buffer
  /** The bytes that follow, with the marker at `markerAt`. */
  readonly tail: Buffer
  readonly markerAt: number
  /** Of a gzip body: the stream up to the tail, and the check sum of `common`. */
  readonly packed: Buffer
  readonly commonCrc: number
}

// RFC 1952, section 2.3: deflate, no name, no time, unknown system.
const gzipHeader = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])
/** Where a marker will stand. */
const placeholder = '#'.repeat(markerLength)

/**
 * Makes a template of a request: a resource with the marker and no items is appended, which is the same request with
 * one resource more. In a gzip body that resource lies in a stored block behind the compressed ones (RFC 1951,
 * section 3.2.4), so that a new marker costs a copy and a check sum, not a compression.
 */
export function bodyTemplate(
  signal: StressSignal,
  encoding: 'identity' | 'gzip',
  items: number,
  common: Buffer,
): BodyTemplate {
  const resource = { attributes: [{ key: 'stress.marker', value: { stringValue: placeholder } }] }
  const field = { traces: 'resourceSpans', metrics: 'resourceMetrics', logs: 'resourceLogs' }[signal]
  const tail = encodeRequest(signal, { [field]: [{ resource }] })
  return templateOf({ signal, contentType: 'application/x-protobuf', encoding, items, common, tail })
}

/** The same of a request in JSON, of which `common` is everything up to where one more resource can be appended. */
export function jsonTemplate(
  signal: StressSignal,
  encoding: 'identity' | 'gzip',
  items: number,
  common: Buffer,
): BodyTemplate {
  const tail = Buffer.from(
    `{"resource":{"attributes":[{"key":"stress.marker","value":{"stringValue":"${placeholder}"}}]}}]}`,
  )
  return templateOf({ signal, contentType: 'application/json', encoding, items, common, tail })
}

function templateOf({
  signal,
  contentType,
  encoding,
  items,
  common,
  tail,
}: Omit<BodyTemplate, 'markerAt' | 'packed' | 'commonCrc'>): BodyTemplate {
  const isGzip = encoding === 'gzip'
  return {
    signal,
    contentType,
    encoding,
    items,
    common,
    tail,
    markerAt: tail.indexOf(placeholder),
    // A flush instead of an end: the stream is at a byte boundary and goes on.
    packed: isGzip
      ? Buffer.concat([gzipHeader, deflateRawSync(common, { finishFlush: constants.Z_SYNC_FLUSH })])
      : Buffer.alloc(0),
    commonCrc: isGzip ? crc32(common) : 0,
  }
}

/** The bytes of a copy before compression. */
export function markedPlain(template: BodyTemplate, marker: string): Buffer {
  return Buffer.concat([template.common, markedTail(template, marker)])
}

/** A copy as it goes on the wire. */
export function markedBody(template: BodyTemplate, marker: string): Buffer {
  return Buffer.concat(markedParts(template, marker))
}

/** The same as its two parts, of which all copies share the first. */
export function markedParts(template: BodyTemplate, marker: string): [Buffer, Buffer] {
  const tail = markedTail(template, marker)
  if (template.encoding === 'identity') return [template.common, tail]
  const block = Buffer.alloc(5 + tail.length + 8)
  block.writeUInt8(1, 0)
  block.writeUInt16LE(tail.length, 1)
  block.writeUInt16LE(~tail.length & 0xffff, 3)
  tail.copy(block, 5)
  block.writeUInt32LE(crc32(tail, template.commonCrc), 5 + tail.length)
  block.writeUInt32LE(template.common.length + tail.length, 9 + tail.length)
  return [template.packed, block]
}

/** Whether these are the bytes of the copy with this marker. */
export function isCopy(template: BodyTemplate, marker: string, bytes: Buffer): boolean {
  const { common, tail } = template
  return (
    bytes.length === common.length + tail.length &&
    bytes.subarray(0, common.length).equals(common) &&
    bytes.subarray(common.length).equals(markedTail(template, marker))
  )
}

function markedTail({ tail, markerAt }: BodyTemplate, marker: string): Buffer {
  const copy = Buffer.from(tail)
  copy.write(marker, markerAt, 'latin1')
  return copy
}
