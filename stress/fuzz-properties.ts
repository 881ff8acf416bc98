import { isDeepStrictEqual } from 'node:util'
import { gunzipSync, gzipSync } from 'node:zlib'
import { PREFIX_BYTES } from '../src/ingress/grpc-framing.ts'
import { messageCharactersMax } from '../src/otlp/error.ts'
import type { Signal } from '../src/otlp/signal.ts'
import { decodeSummary } from '../src/otlp/summary.ts'
import { walk } from '../src/otlp/walk.ts'
import { decodeElsewhere, decodeOutlineElsewhere } from '../test/otlp/random-requests.ts'
import type { FuzzBody } from './fuzz-bodies.ts'
import type { Verdict } from './fuzz-judge.ts'
import { countElsewhere, summaryElsewhere } from './fuzz-summary.ts'
import type { RefusalRule, Tried } from './fuzz-target.ts'

/** What stands behind a request in the same object. */
const next = Buffer.from('the next request')
const packedNext = gzipSync(next)

/** What must be true of every body; the fuzzer names the one that is not. */
export const properties = {
  outcome: 'it is accepted, or refused as the sender’s fault',
  message: 'the sentence of a refusal is well-formed and has at most 1,000 characters',
  budget: 'every byte of the in-flight budget comes back',
  intact: 'a good request is accepted',
  stored: 'what is stored is a request that the walk takes as it is, with as many items',
  joined: 'what is stored hides nothing that follows it in an object',
  unchanged: 'what needs no repair is stored as it came',
  repaired: 'a repaired request says the same as before to a decoder that repairs strings itself',
  protobufjs: 'what is stored is decoded by protobufjs',
  items: 'the items are those that protobufjs counts',
  summary: 'the summary of a good request is what protobufjs sees',
  json: 'JSON that is accepted is JSON to JSON.parse',
  python: 'what is stored is decoded by opentelemetry-proto for Python',
  refusal: 'what Python decodes to the bottom is accepted, save for the listed rules',
  needless: 'what Python decodes to the bottom is not repaired',
} as const

export type Property = keyof typeof properties

/** A property that is not true, and how. */
export interface Fault {
  readonly property: Property
  readonly detail: string
}

/** Why a body may be refused that Python decodes, by the name that the fuzzer counts it under. */
export const listedRules = {
  depth: 'over 100 messages or 99 groups deep: the decoders of C++ and Java refuse it',
  id_length: 'a trace or span id of another length than 16, 8 or none: OTLP calls it invalid',
  wire_type:
    'a known field with a value of another kind, which Python puts among the unknown fields: the data would be lost',
  number_size: 'a varint of more than 64 bits: Go refuses it, and whoever does not cuts it off',
  size: 'larger than MAX_BODY_BYTES as it came or unpacked',
  padding: 'zeros after a gzip member: they would hide what follows in an object from some readers',
  gzip_header:
    'a gzip header with a wrong checksum or reserved flags, which Python does not look at (RFC 1952, 2.3.1.2)',
} as const

export type ListedRule = keyof typeof listedRules

/** What can be seen of one body in this process. */
export function faultsOf(
  body: FuzzBody,
  tried: Tried,
  seen: { rule: RefusalRule | undefined; content: Buffer | undefined },
): Fault[] {
  const faults: Fault[] = []
  const fault = (property: Property, detail: unknown) =>
    void faults.push({ property, detail: String(detail) })
  const { outcome, row } = tried
  if (tried.leakedBytes !== 0) fault('budget', `${tried.leakedBytes} bytes are still held`)
  const accepted = outcome.kind === 'accepted'
  if (!accepted && outcome.kind !== 'malformed' && outcome.kind !== 'too_large') {
    fault('outcome', `${outcome.kind}: ${tried.bug instanceof Error ? tried.bug.stack : tried.bug}`)
  }
  if (
    'message' in outcome &&
    (outcome.message.length > messageCharactersMax || !outcome.message.isWellFormed())
  ) {
    fault('message', JSON.stringify(outcome.message))
  }
  if (body.intact && !accepted) fault('intact', 'message' in outcome ? outcome.message : outcome.kind)
  if (!accepted && seen.rule === undefined) fault('outcome', `refused by no rule: ${outcome.kind}`)
  if (row === undefined) {
    if (accepted && (seen.content === undefined || (body.format === 'protobuf' && seen.content.length > 0))) {
      fault('stored', 'accepted, but nothing is stored')
    }
    return faults
  }
  if (seen.content === undefined) return faults
  let stored = row.payload
  if (row.encoding === 'gzip') {
    // As in an object, where the next request of its batch follows.
    const joined = gunzipSync(Buffer.concat([row.payload, packedNext]))
    stored = joined.subarray(0, joined.length - next.length)
    if (!joined.subarray(stored.length).equals(next)) {
      fault('joined', `${joined.length} bytes come out of it and the next`)
      return faults
    }
  }
  faultsOfStored(body, tried, seen.content, stored, fault)
  return faults
}

function faultsOfStored(
  body: FuzzBody,
  { row, repairedStrings }: Tried,
  content: Buffer,
  stored: Buffer,
  fault: (property: Property, detail: unknown) => void,
): void {
  if (row === undefined) return
  const again = walk(body.signal, stored)
  if (again.repairedStrings !== 0 || again.items !== row.items || stored.length !== row.unpackedBytes) {
    fault(
      'stored',
      `${again.items} of ${row.items} items, ${again.repairedStrings} strings to be repaired, ${stored.length} of ${row.unpackedBytes} bytes`,
    )
  }
  if (body.format === 'json') {
    try {
      JSON.parse(content.toString())
    } catch (error) {
      fault('json', error)
    }
  } else if (repairedStrings === 0 && !stored.equals(content))
    fault('unchanged', `${stored.length} bytes of ${content.length}`)
  let decoded: unknown
  try {
    decoded = decodedElsewhere(body.signal, stored)
  } catch (error) {
    fault('protobufjs', error)
    return
  }
  if (repairedStrings > 0 && !isDeepStrictEqual(decodedElsewhere(body.signal, content), decoded)) {
    fault('repaired', `${repairedStrings} strings`)
  }
  const items = countElsewhere(body.signal, decoded)
  // Of a metric that has data twice the decoder keeps the last kind, and the walk has counted both.
  if (body.signal === 'metrics' && !body.intact ? row.items < items : row.items !== items) {
    fault('items', `${row.items}, where protobufjs has ${items}`)
  }
  if (!body.intact) return
  const summary = decodeSummary(row.summary)
  const expected = summaryElsewhere(body.signal, decoded)
  if (!isDeepStrictEqual(summary, expected))
    fault('summary', `${print(summary)} where protobufjs has ${print(expected)}`)
}

/** As protobufjs decodes it; what is in a profile and in its dictionary may be of another release, and is then left alone. */
function decodedElsewhere(signal: Signal, body: Buffer): unknown {
  if (signal !== 'profiles') return decodeElsewhere(signal, body)
  try {
    return decodeElsewhere(signal, body)
  } catch {
    return decodeOutlineElsewhere(body)
  }
}

function print(value: unknown): string {
  return JSON.stringify(value, (_, one: unknown) => (typeof one === 'bigint' ? String(one) : one)).slice(
    0,
    500,
  )
}

/** What the other decoder says of what came. */
export function faultOfRefusal(
  body: FuzzBody,
  rule: RefusalRule,
  verdict: Verdict,
): Fault | ListedRule | undefined {
  if (!verdict.decoded) return undefined
  const listed = listedRule(body, rule)
  return listed ?? { property: 'refusal', detail: `refused for ${rule}` }
}

function listedRule(body: FuzzBody, rule: RefusalRule): ListedRule | undefined {
  switch (rule) {
    case 'depth':
    case 'id_length':
    case 'wire_type':
    case 'number_size':
    case 'size':
      return rule
    case 'compression':
      if (body.encoding !== 'gzip') return undefined
      return gzipRule(body.framed ? body.body.subarray(PREFIX_BYTES) : body.body)
    default:
      return undefined
  }
}

/** What zlib says of a gzip header that Python takes. */
const headerFaults = ['header crc mismatch', 'unknown header flags set']

function gzipRule(packed: Buffer): ListedRule | undefined {
  try {
    // It stops without an error where no further member begins.
    const { engine } = gunzipSync(packed, { info: true }) as unknown as { engine: { bytesWritten: number } }
    return packed[engine.bytesWritten] === 0 ? 'padding' : undefined
  } catch (error) {
    return error instanceof Error && headerFaults.includes(error.message) ? 'gzip_header' : undefined
  }
}

/** What the other decoder says of what would be stored, and of what came where that was accepted. */
export function faultOfAccepted(
  tried: Tried,
  verdicts: { stored?: Verdict; came?: Verdict | undefined },
): Fault | undefined {
  if (verdicts.stored !== undefined && !verdicts.stored.decoded)
    return { property: 'python', detail: verdicts.stored.reason }
  if (verdicts.came?.inFull && tried.repairedStrings > 0) {
    return { property: 'needless', detail: `${tried.repairedStrings} strings` }
  }
  return undefined
}
