import { createHash } from 'node:crypto'
import { asFailure } from '../foundation/failure.ts'
import { BodyTooLargeError, unpack } from '../otlp/compression.ts'
import { OtlpError } from '../otlp/error.ts'
import { readRequest } from '../otlp/read-request.ts'
import type { CataloguedObject } from './catalog-pages.ts'
import type { ObjectStore } from './object-store.ts'

/**
 * How an object differs from what the catalog says.
 *
 * - `missing`: the store does not have it.
 * - `size`, `checksum`: it has other bytes.
 * - `content`: its bytes are those that were stored, and are not the requests and items that the catalog counts.
 * - `unreadable`: the store does not give it.
 */
export type FaultKind = 'missing' | 'size' | 'checksum' | 'content' | 'unreadable'

export interface Fault {
  what: FaultKind
  detail: string
}

/** Read at once, or one request if that is longer. */
const READ_BYTES = 4 * 1024 * 1024
/** What `MAX_BODY_BYTES` can be at most. */
const UNPACKED_BYTES_MAX = 512 * 1024 * 1024

/**
 * Compares an object with its row in the catalog: its size and its SHA-256, and that each request unpacks and decodes
 * alone and all of them hold as many items as the row says. `isFast` takes the store's word for size and checksum.
 * Undefined when all is right. Holds one request or 4 MiB, whichever is more.
 *
 * @throws Failure `configuration` when the store refuses us.
 */
export async function checkObject(
  store: ObjectStore,
  object: CataloguedObject,
  { isFast }: { isFast: boolean },
): Promise<Fault | undefined> {
  try {
    const fault = await (isFast ? compare(store, object) : readThrough(store, object))
    if (fault?.what !== 'missing') return fault
    // No decision from a single answer that it is not there.
    return (await store.stat(object.key)) === undefined ? fault : await readThrough(store, object)
  } catch (thrown) {
    const failure = asFailure(thrown)
    if (failure.kind === 'bug' || failure.kind === 'configuration') throw thrown
    return { what: 'unreadable', detail: failure.message }
  }
}

async function compare(store: ObjectStore, object: CataloguedObject): Promise<Fault | undefined> {
  const info = await store.stat(object.key)
  if (info === undefined) return missing(store, object)
  if (info.bytes !== object.bytes) return otherSize(object, info.bytes)
  return info.checksum === object.checksum ? undefined : otherChecksum(object, info.checksum ?? 'none')
}

async function readThrough(store: ObjectStore, object: CataloguedObject): Promise<Fault | undefined> {
  const ranges = rangesOf(object)
  if (ranges === undefined) {
    const detail = `the offsets in the catalog are not places in ${object.bytes} bytes, in rising order from 0`
    return { what: 'content', detail }
  }
  const sha256 = createHash('sha256')
  let items = 0
  let unreadable: string | undefined
  for (const { start, end, requests } of ranges) {
    // A byte more than the last tells whether there is one.
    const stored = await store.get(object.key, { start, end: end === object.bytes ? end + 1 : end })
    if (stored === undefined) return missing(store, object)
    if (stored.length !== end - start) return await sizeFault(store, object, start + stored.length)
    sha256.update(stored)
    if (unreadable !== undefined) continue
    for (const [from, to] of requests) {
      const counted = await countItems(object, stored.subarray(from - start, to - start))
      if (typeof counted === 'number') items += counted
      else unreadable ??= `the request at byte ${from}: ${counted}`
    }
  }
  const checksum = `sha256:${sha256.digest('hex')}`
  if (checksum !== object.checksum) return otherChecksum(object, checksum)
  if (unreadable !== undefined) return { what: 'content', detail: unreadable }
  if (items === object.items) return undefined
  return { what: 'content', detail: `it holds ${items} items, not ${object.items}` }
}

interface Range {
  start: number
  end: number
  requests: [from: number, to: number][]
}

/** Requests that are read together; undefined when they are not one after the other. */
function rangesOf({ offsets, bytes }: CataloguedObject): Range[] | undefined {
  const ranges: Range[] = []
  for (const [index, from] of offsets.entries()) {
    const to = offsets[index + 1] ?? bytes
    if ((index === 0 && from !== 0) || to < from || to > bytes) return undefined
    const last = ranges.at(-1)
    if (last !== undefined && to - last.start <= READ_BYTES) {
      last.end = to
      last.requests.push([from, to])
    } else {
      ranges.push({ start: from, end: to, requests: [[from, to]] })
    }
  }
  return ranges
}

/** How many items a stored request holds, or why it is none. */
async function countItems({ signal, encoding }: CataloguedObject, stored: Buffer): Promise<number | string> {
  try {
    const { bytes } = await unpack(encoding, stored, UNPACKED_BYTES_MAX)
    const request = readRequest(signal, 'protobuf', bytes)
    return request.asItCame ? request.items : 'a text in it is not UTF-8'
  } catch (thrown) {
    if (thrown instanceof OtlpError || thrown instanceof BodyTooLargeError) return thrown.message
    throw thrown
  }
}

function missing(store: ObjectStore, { bucket }: CataloguedObject): Fault {
  const elsewhere = bucket === store.bucket ? '' : `; it was put into ${bucket}`
  return { what: 'missing', detail: `not in ${store.bucket}${elsewhere}` }
}

/** The range says no more than that the size is another. */
async function sizeFault(store: ObjectStore, object: CataloguedObject, atLeast: number): Promise<Fault> {
  return otherSize(object, (await store.stat(object.key))?.bytes ?? atLeast)
}

function otherSize({ bytes }: CataloguedObject, found: number): Fault {
  return { what: 'size', detail: `it has ${found} bytes, not ${bytes}` }
}

function otherChecksum({ checksum }: CataloguedObject, found: string): Fault {
  return { what: 'checksum', detail: `${found}, not ${checksum}` }
}
