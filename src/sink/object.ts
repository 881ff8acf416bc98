import { invariant } from '../foundation/failure.ts'
import { allocateLarge } from '../foundation/memory.ts'
import type { Encoding, Signal } from '../otlp/signal.ts'
import type { Summary } from '../otlp/summary.ts'
import { checksumOf, objectKey } from './object-key.ts'

/** One staged request as the relay claimed it. */
export interface BatchRow {
  id: bigint
  tenant: string
  signal: Signal
  encoding: Encoding
  items: number
  bytes: number
  summary: Summary
  payload: Buffer
}

/** An object that a batch leaves in the store, with everything that the catalog says about it. */
export interface BatchObject {
  tenant: string
  signal: Signal
  encoding: Encoding
  key: string
  body: Buffer
  checksum: string
  requests: number
  items: number
  bytes: number
  minTimeUnixNano: bigint | undefined
  maxTimeUnixNano: bigint | undefined
  /** Distinct, in order of appearance, at most 64. */
  services: string[]
  queueIds: bigint[]
  /** Where each request starts, in bytes of the object as stored. */
  offsets: number[]
  /** Of each request, as in `offsets`, the traces of which it may hold spans. */
  traceHashes: BigInt64Array[]
}

const servicesMax = 64
/** `stored_object.offsets` is an integer array, and a protobuf message ends at 2 GiB. */
const objectBytesMax = 2 ** 31 - 1
/** `trace_index.request_no` is a smallint. */
const requestsMax = 2 ** 15

/**
 * The objects of a batch: one for each tenant, signal and encoding, with the requests in order of their ids; for
 * profiles one for each request, because a reader would merge the dictionaries of concatenated ones and point every
 * index of the second wrong. The same rows give the same keys and bytes in whatever order they come.
 *
 * Concatenated messages are one message (Protocol Buffers, Encoding, "Last One Wins": repeated fields are appended),
 * and concatenated gzip members are one gzip file (RFC 1952, section 2.2), so nothing is decoded here. `onCopied` is told of
 * each payload as soon as an object has a copy of it; an object of one request is its payload.
 */
export function objectsOfBatch(
  batchId: string,
  rows: readonly BatchRow[],
  { prefix = '', onCopied }: { prefix?: string; onCopied?: (payload: Buffer) => void } = {},
): BatchObject[] {
  return groupsOf(rows).map((members) => objectOf(batchId, members, prefix, onCopied))
}

type Placed = Pick<BatchRow, 'id' | 'tenant' | 'signal' | 'encoding'>

/** The keys of the same objects, without making them. */
export function objectKeysOfBatch(
  batchId: string,
  rows: readonly Placed[],
  { prefix = '' }: { prefix?: string } = {},
): string[] {
  return groupsOf(rows).map(([first]) => keyOf(batchId, first, prefix))
}

/** Rows that share an object, each group and all of them in order of their ids. */
function groupsOf<Row extends Placed>(rows: readonly Row[]): [Row, ...Row[]][] {
  const groups = new Map<string, [Row, ...Row[]]>()
  for (const row of rows.toSorted(byId)) {
    const { tenant, signal, encoding } = row
    const group = `${tenant}/${signal}/${encoding}${signal === 'profiles' ? `/${row.id}` : ''}`
    const members = groups.get(group)
    if (members === undefined) groups.set(group, [row])
    else members.push(row)
  }
  return [...groups.values()]
}

function keyOf(batchId: string, { id, tenant, signal, encoding }: Placed, prefix: string): string {
  return objectKey({
    prefix,
    tenant,
    signal,
    encoding,
    batchId,
    ...(signal === 'profiles' ? { queueId: id } : {}),
  })
}

function byId(a: Placed, b: Placed): number {
  if (a.id === b.id) return 0
  return a.id < b.id ? -1 : 1
}

function objectOf(
  batchId: string,
  rows: readonly [BatchRow, ...BatchRow[]],
  prefix: string,
  onCopied: ((payload: Buffer) => void) | undefined,
): BatchObject {
  const [first] = rows
  invariant(rows.length <= requestsMax, `an object of ${rows.length} requests`)
  const { tenant, signal, encoding } = first
  const services = new Set<string>()
  const offsets: number[] = []
  const traceHashes: BatchObject['traceHashes'] = []
  let [bytes, items] = [0, 0]
  let minTimeUnixNano: bigint | undefined
  let maxTimeUnixNano: bigint | undefined
  for (const { payload, items: rowItems, summary } of rows) {
    offsets.push(bytes)
    bytes += payload.length
    items += rowItems
    for (const service of summary.services) if (services.size < servicesMax) services.add(service)
    traceHashes.push(summary.traceHashes)
    minTimeUnixNano = earlier(minTimeUnixNano, summary.minTimeUnixNano)
    maxTimeUnixNano = later(maxTimeUnixNano, summary.maxTimeUnixNano)
  }
  invariant(bytes <= objectBytesMax, `an object of ${bytes} bytes; claims end long before`)
  const body = rows.length === 1 ? first.payload : joined(rows, bytes, onCopied)
  return {
    tenant,
    signal,
    encoding,
    key: keyOf(batchId, first, prefix),
    body,
    checksum: checksumOf(body),
    requests: rows.length,
    items,
    bytes,
    minTimeUnixNano,
    maxTimeUnixNano,
    services: [...services],
    queueIds: rows.map(({ id }) => id),
    offsets,
    traceHashes,
  }
}

function joined(
  rows: readonly BatchRow[],
  bytes: number,
  onCopied: ((payload: Buffer) => void) | undefined,
): Buffer {
  const body = allocateLarge(bytes)
  let at = 0
  for (const { payload } of rows) {
    at += payload.copy(body, at)
    onCopied?.(payload)
  }
  return body
}

function earlier(a: bigint | undefined, b: bigint | undefined): bigint | undefined {
  if (a === undefined || b === undefined) return a ?? b
  return a < b ? a : b
}

function later(a: bigint | undefined, b: bigint | undefined): bigint | undefined {
  if (a === undefined || b === undefined) return a ?? b
  return a > b ? a : b
}
