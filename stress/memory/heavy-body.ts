import { randomBytes } from 'node:crypto'
import { type BodyTemplate, bodyTemplate, isCopy, jsonTemplate, markedParts } from '../marked-body.ts'
import { encodeRequest, type StressSignal } from '../otlp-messages.ts'

/** The largest body that the default settings take. */
export const bodyBytesMax = 20 * 1024 ** 2
const markerReserve = 200

/** A large request of which many copies are sent, which differ in their marker alone. */
export interface HeavyBody {
  readonly name: string
  readonly signal: StressSignal
  readonly contentType: string
  readonly encoding: 'identity' | 'gzip'
  readonly items: number
  /** The parts of a copy as it goes on the wire. */
  parts(marker: string): [Buffer, Buffer]
  /** Whether these protobuf bytes are what has to be stored of the copy with this marker. */
  isStored(marker: string, protobuf: Buffer): boolean
}

/** A request of log records that hold no text twice, so that nothing on the way can make it smaller. */
export function incompressible(bytes: number): HeavyBody {
  const body = randomBytes(Math.floor((bytes - markerReserve) / 2)).toString('hex')
  return protobufBody(`${(bytes / 1024 ** 2).toFixed(0)} MiB`, 'identity', logOf(body), 1)
}

/** The same in JSON. */
export function incompressibleJson(bytes: number): HeavyBody {
  const body = randomBytes(Math.floor((bytes - 2 * markerReserve) / 2)).toString('hex')
  return jsonBody({
    name: `${(bytes / 1024 ** 2).toFixed(0)} MiB of JSON`,
    signal: 'logs',
    encoding: 'identity',
    items: 1,
    json: `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"${body}"}}]}]},`,
    protobuf: logOf(body),
  })
}

/** Bodies of 20 MiB once unpacked, about 20 kB as gzip: the floods that cost most memory for each byte sent. */
export function bombs(): HeavyBody[] {
  const zeros = Math.floor((bodyBytesMax - 4096) / 8)
  return [
    protobufBody('one string', 'gzip', logOf('0'.repeat(bodyBytesMax - markerReserve)), 1),
    protobufBody('empty log records', 'gzip', emptyLogs(), emptyLogCount),
    badStrings('one bad string', 'gzip', bodyBytesMax / 4),
    shortBadStrings(),
    jsonBody({
      name: 'JSON of bucket counts',
      signal: 'metrics',
      encoding: 'gzip',
      items: 1,
      json: `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"bucketCounts":[${'0,'.repeat(zeros - 1)}0]}]}}]}]},${' '.repeat(bodyBytesMax - 2 * zeros - 2 * markerReserve)}`,
      protobuf: bucketCounts(zeros),
    }),
    jsonBody({
      name: 'JSON that grows fourfold',
      signal: 'metrics',
      encoding: 'gzip',
      items: 1,
      json: `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"bucketCounts":[${'0,'.repeat(4 * zeros - markerReserve)}0]}]}}]}]},`,
      protobuf: bucketCounts(4 * zeros - markerReserve + 1),
    }),
    jsonBody({
      name: 'JSON of unknown numbers',
      signal: 'logs',
      encoding: 'gzip',
      items: 0,
      json: `{"x":[${'1e1,'.repeat(bodyBytesMax / 4 - markerReserve)}0],"resourceLogs":[`,
      protobuf: Buffer.alloc(0),
    }),
  ]
}

function protobufBody(name: string, encoding: 'identity' | 'gzip', common: Buffer, items: number): HeavyBody {
  return heavyBody(name, bodyTemplate('logs', encoding, items, common))
}

/** `json` is the beginning of a request up to where its last resource begins; `protobuf` what it is in protobuf. */
function jsonBody(body: {
  name: string
  signal: StressSignal
  encoding: 'identity' | 'gzip'
  items: number
  json: string
  protobuf: Buffer
}): HeavyBody {
  const { name, signal, encoding, items, json, protobuf } = body
  const template = jsonTemplate(signal, encoding, items, Buffer.from(json, 'latin1'))
  return heavyBody(name, template, bodyTemplate(signal, 'identity', items, protobuf))
}

function heavyBody(name: string, template: BodyTemplate, stored: BodyTemplate = template): HeavyBody {
  const { signal, contentType, encoding, items } = template
  return {
    name,
    signal,
    contentType,
    encoding,
    items,
    parts: (marker) => markedParts(template, marker),
    isStored: (marker, protobuf) => isCopy(stored, marker, protobuf),
  }
}

function logOf(body: string): Buffer {
  return encodeRequest('logs', {
    resourceLogs: [{ scopeLogs: [{ logRecords: [{ body: { stringValue: body } }] }] }],
  })
}

/** A message around others: its tag, its length, and what is in it. */
function message(field: number, content: Buffer): Buffer {
  const length: number[] = []
  for (let left = content.length; ; left >>>= 7) {
    length.push(left < 0x80 ? left : (left & 0x7f) | 0x80)
    if (left < 0x80) break
  }
  return Buffer.concat([Buffer.from([field * 8 + 2, ...length]), content])
}

const emptyLogCount = bodyBytesMax / 2 - markerReserve

function emptyLogs(): Buffer {
  return message(1, message(2, Buffer.alloc(2 * emptyLogCount, Buffer.from([0x12, 0]))))
}

function bucketCounts(count: number): Buffer {
  const point = message(6, Buffer.alloc(8 * count))
  return message(1, message(2, message(2, message(9, message(1, point)))))
}

/** A log record whose text is bytes that are no UTF-8: each becomes three. */
function badStrings(name: string, encoding: 'identity' | 'gzip', bytes: number): HeavyBody {
  const text = (fill: Buffer, length: number) =>
    message(1, message(2, message(2, message(3, Buffer.alloc(length, fill)))))
  const sent = text(Buffer.from([0xff]), bytes)
  const kept = text(Buffer.from('\ufffd'), 3 * bytes)
  return heavyBody(name, bodyTemplate('logs', encoding, 1, sent), bodyTemplate('logs', 'identity', 1, kept))
}

/** Millions of log records, each with a text of one byte that is no UTF-8. */
function shortBadStrings(): HeavyBody {
  const count = Math.floor((bodyBytesMax - markerReserve) / 5)
  const records = (record: Buffer) => message(1, message(2, Buffer.alloc(record.length * count, record)))
  const sent = records(message(2, message(3, Buffer.from([0xff]))))
  const kept = records(message(2, message(3, Buffer.from('\ufffd'))))
  return heavyBody(
    'short bad strings',
    bodyTemplate('logs', 'gzip', count, sent),
    bodyTemplate('logs', 'identity', count, kept),
  )
}
