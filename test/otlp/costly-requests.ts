import type { Signal } from '../../src/otlp/signal.ts'
import { attribute, field, number, resource, spanRequest } from './wire-format.ts'

/** A request of just under 1 MiB that costs about as much as any of its size. */
export interface CostlyRequest {
  readonly name: string
  readonly signal: Signal
  readonly format: 'protobuf' | 'json'
  readonly body: Buffer
}

const bytesMax = 1024 * 1024 - 2000
const bad = Buffer.from([0xff])

function repeated(part: Buffer): Buffer {
  return Buffer.alloc(Math.floor(bytesMax / part.length) * part.length, part)
}

function counted(make: (index: number) => Buffer): Buffer {
  const parts: Buffer[] = []
  for (let index = 0, length = 0; ; index++) {
    const part = make(index)
    length += part.length
    if (length > bytesMax) return Buffer.concat(parts)
    parts.push(part)
  }
}

function traceId(index: number): Buffer {
  const id = Buffer.alloc(16, 7)
  id.writeUInt32LE(index)
  return id
}

/** Arrays in each other, as deep as they may be, with `innermost` in the last. */
function deep(innermost: Buffer): Buffer {
  let value = innermost
  for (let i = 0; i < 46; i++) value = field(5, field(1, value))
  return attribute(9, 'deep', value)
}

const spans = (content: Buffer) => field(1, field(2, content))

const protobufs: readonly [string, Signal, Buffer][] = [
  ['empty spans', 'traces', spans(repeated(field(2)))],
  ['empty log records', 'logs', field(1, field(2, repeated(field(2))))],
  ['empty samples of a profile', 'profiles', field(1, field(2, field(2, repeated(field(2)))))],
  ['small numbers', 'traces', spanRequest(repeated(number(6, 1)))],
  ['spans of different traces', 'traces', spans(counted((index) => field(2, field(1, traceId(index)))))],
  ['different services', 'traces', counted((index) => field(1, resource(`${index}`)))],
  ['services named by NULs', 'traces', counted((index) => field(1, resource(`${'\0'.repeat(250)}${index}`)))],
  ['short texts', 'traces', spanRequest(repeated(field(5, 'ü')))],
  ['deep arrays', 'traces', spanRequest(repeated(deep(field(1, ''))))],
  ['one bad text', 'traces', spanRequest(field(5, Buffer.alloc(bytesMax, bad)))],
  ['one text of cut characters', 'traces', spanRequest(field(5, Buffer.alloc(bytesMax, 0xc2)))],
  ['bad texts of one byte', 'traces', spanRequest(repeated(field(5, bad)))],
  ['spans with bad names', 'traces', spans(repeated(field(2, field(5, bad))))],
  ['deep arrays with bad texts', 'traces', spanRequest(repeated(deep(field(1, bad))))],
  ['bad texts of a dictionary', 'profiles', field(2, repeated(field(5, bad)))],
  [
    'one bad text of a profile of another release',
    'profiles',
    field(2, repeated(field(5, bad)), number(5, 1)),
  ],
]

const list = (item: string) => `[${`${item},`.repeat(Math.floor(bytesMax / (item.length + 1)))}${item}]`
const members = (member: string) => `${member},`.repeat(Math.floor(bytesMax / (member.length + 1))) + member
const span = (content: string) => `{"resourceSpans":[{"scopeSpans":[{"spans":[{${content}}]}]}]}`
const manySpans = (content: string) => `{"resourceSpans":[{"scopeSpans":[{"spans":${content}}]}]}`
const point = (kind: string, content: string) =>
  `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"${kind}":{"dataPoints":[{${content}}]}}]}]}]}`
const histogram = (content: string) => point('histogram', content)

const jsons: readonly [string, Signal, string][] = [
  ['empty spans', 'traces', manySpans(list('{}'))],
  ['small counts', 'metrics', histogram(`"bucketCounts":${list('1')}`)],
  ['small varints', 'metrics', point('exponentialHistogram', `"positive":{"bucketCounts":${list('9')}}`)],
  ['counts with exponents', 'metrics', histogram(`"bucketCounts":${list('1e1')}`)],
  ['large counts with exponents', 'metrics', histogram(`"bucketCounts":${list('1e19')}`)],
  ['counts with fractions', 'metrics', histogram(`"bucketCounts":${list('0.0')}`)],
  ['small doubles', 'metrics', histogram(`"explicitBounds":${list('1')}`)],
  ['long doubles', 'metrics', histogram(`"explicitBounds":${list('1.7976931348623157e308')}`)],
  [
    'doubles of 30 digits',
    'metrics',
    histogram(`"explicitBounds":${list('9007199254740993.00000000000000')}`),
  ],
  ['doubles by name', 'metrics', histogram(`"explicitBounds":${list('"NaN"')}`)],
  ['one endless double', 'metrics', histogram(`"explicitBounds":[0.${'7'.repeat(bytesMax)}]`)],
  ['short texts', 'profiles', `{"dictionary":{"stringTable":${list('""')}}}`],
  ['short texts with escapes', 'profiles', `{"dictionary":{"stringTable":${list('"\\n"')}}}`],
  ['names with escapes', 'traces', span(members('"\\n":1'))],
  ['one text of escapes', 'traces', span(`"name":"${'\\ud800'.repeat(Math.floor(bytesMax / 6))}"`)],
  ['unknown numbers', 'traces', span(`"x":${list('1')}`)],
  ['one name again and again', 'traces', span(members('"kind":1'))],
  [
    'values deep down',
    'traces',
    span(
      `"attributes":[{"value":${'{"arrayValue":{"values":['.repeat(46)}${list('{}').slice(1, -1)}${']}}'.repeat(46)}}]`,
    ),
  ],
  ['bytes', 'traces', span(`"attributes":[{"value":{"bytesValue":"${'AAAA'.repeat(bytesMax / 4)}"}}]`)],
]

/** For each way through the code the request that was found to cost most; all others were cheaper. */
export const costlyRequests: readonly CostlyRequest[] = [
  ...protobufs.map(([name, signal, body]) => ({ name, signal, format: 'protobuf' as const, body })),
  ...jsons.map(([name, signal, text]) => ({
    name,
    signal,
    format: 'json' as const,
    body: Buffer.from(text),
  })),
]
