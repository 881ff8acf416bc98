import { Failure } from '../foundation/failure.ts'

/**
 * What the walk over a request saw, kept beside it as `ingestion_queue.summary` so that nothing behind the door
 * decodes a payload again.
 */
export interface Summary {
  /** Nanoseconds since 1970; undefined when no time between 1970 and 2262 was seen. */
  minTimeUnixNano: bigint | undefined
  maxTimeUnixNano: bigint | undefined
  /** Distinct `service.name` values in order of appearance: at most 64, each cut to 256 characters. */
  services: string[]
  /** `traceHash` of distinct trace ids of spans: at most 10,000. */
  traceHashes: BigInt64Array
  /** True when services or trace ids were left out because there were too many. */
  cut: boolean
}

const version = 1
const cutFlag = 1
const minTimeFlag = 2
const maxTimeFlag = 4

/**
 * A summary as `ingestion_queue.summary` keeps it: version 1, flags, times (8 bytes each where known), number of
 * services (2 bytes), each with its length (2 bytes) and UTF-8, number of hashes (4 bytes), each 8 bytes. All numbers
 * little-endian. `services` must be well-formed text of at most 65,535 bytes each, as the walk yields it.
 */
export function encodeSummary(summary: Summary): Buffer {
  const { minTimeUnixNano, maxTimeUnixNano, services, traceHashes, cut } = summary
  let length = 24 + 8 * traceHashes.length
  for (const service of services) length += 2 + Buffer.byteLength(service)
  const bytes = Buffer.allocUnsafe(length)
  let flags = cut ? cutFlag : 0
  let at = 2
  bytes[0] = version
  if (minTimeUnixNano !== undefined) {
    flags |= minTimeFlag
    at = bytes.writeBigInt64LE(minTimeUnixNano, at)
  }
  if (maxTimeUnixNano !== undefined) {
    flags |= maxTimeFlag
    at = bytes.writeBigInt64LE(maxTimeUnixNano, at)
  }
  bytes[1] = flags
  at = bytes.writeUInt16LE(services.length, at)
  for (const service of services) {
    const written = bytes.write(service, at + 2)
    bytes.writeUInt16LE(written, at)
    at += 2 + written
  }
  at = bytes.writeUInt32LE(traceHashes.length, at)
  // Every platform of Node is little-endian.
  bytes.set(new Uint8Array(traceHashes.buffer, traceHashes.byteOffset, traceHashes.byteLength), at)
  return bytes.subarray(0, at + traceHashes.byteLength)
}

/**
 * Reads what `encodeSummary` wrote.
 *
 * @throws {Failure} of kind `data` for bytes that it did not write, or of a version that this release does not know.
 */
export function decodeSummary(bytes: Buffer): Summary {
  if (bytes[0] !== version) {
    throw new Failure('data', `a summary of version ${bytes[0]}, where this release knows version ${version}`)
  }
  try {
    return decodeFields(bytes)
  } catch (error) {
    throw new Failure('data', 'a summary that is cut off', { cause: error })
  }
}

function decodeFields(bytes: Buffer): Summary {
  const flags = bytes.readUInt8(1)
  let at = 2
  let minTimeUnixNano: bigint | undefined
  let maxTimeUnixNano: bigint | undefined
  if (flags & minTimeFlag) {
    minTimeUnixNano = bytes.readBigInt64LE(at)
    at += 8
  }
  if (flags & maxTimeFlag) {
    maxTimeUnixNano = bytes.readBigInt64LE(at)
    at += 8
  }
  const services: string[] = []
  let left = bytes.readUInt16LE(at)
  at += 2
  for (; left > 0; left--) {
    const end = at + 2 + bytes.readUInt16LE(at)
    services.push(bytes.toString('utf8', at + 2, end))
    at = end
  }
  const count = bytes.readUInt32LE(at)
  at += 4
  if (bytes.length < at + 8 * count) throw new RangeError(`${count} hashes are more than there are`)
  const traceHashes = new BigInt64Array(count)
  bytes.copy(new Uint8Array(traceHashes.buffer), 0, at, at + 8 * count)
  return { minTimeUnixNano, maxTimeUnixNano, services, traceHashes, cut: (flags & cutFlag) !== 0 }
}
