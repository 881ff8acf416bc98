/** The statement that `encodeTraceEntries` writes for. */
export const copyTraceEntriesText =
  'COPY trace_index (trace_hash, object_id, request_no) FROM STDIN (FORMAT binary)'

/** The traces of an object: of each of its requests, those of which it may hold spans. */
export interface ObjectTraces {
  objectId: string
  traceHashes: readonly BigInt64Array[]
}

// PostgreSQL documentation, COPY, "Binary Format": signature, flags, length of the header extension.
const header = Buffer.from('5047434f50590aff0d0a000000000000000000', 'hex')
const trailer = Buffer.from('ffff', 'hex')
/** Number of fields; lengths and values of an int8, a uuid and an int2. */
const ENTRY_BYTES = 2 + (4 + 8) + (4 + 16) + (4 + 2)
const HASH_AT = 2 + 4
const OBJECT_AT = HASH_AT + 8 + 4
const REQUEST_AT = OBJECT_AT + 16 + 4
const PIECE_ENTRIES_MAX = 6_000

/**
 * The rows of `trace_index` in PostgreSQL's binary COPY format, in pieces of at most 240 kB, each made when it is asked for.
 */
export function* encodeTraceEntries(objects: readonly ObjectTraces[]): Generator<Buffer> {
  yield header
  let left = objects.reduce((sum, one) => sum + one.traceHashes.reduce((of, { length }) => of + length, 0), 0)
  let piece = emptyPiece(left)
  let at = 0
  for (const { objectId, traceHashes } of objects) {
    const entry = entryOf(objectId)
    for (const [requestNo, hashes] of traceHashes.entries()) {
      entry.writeInt16BE(requestNo, REQUEST_AT)
      const halves = new Int32Array(hashes.buffer, hashes.byteOffset, hashes.length * 2)
      for (let place = 0; place < halves.length; place += 2) {
        // Every platform of Node is little-endian, so the low half comes first.
        entry.writeInt32BE(halves[place + 1] as number, HASH_AT)
        entry.writeInt32BE(halves[place] as number, HASH_AT + 4)
        piece.set(entry, at)
        at += ENTRY_BYTES
        if (at < piece.length) continue
        yield piece
        left -= at / ENTRY_BYTES
        piece = emptyPiece(left)
        at = 0
      }
    }
  }
  yield trailer
}

function emptyPiece(entriesLeft: number): Buffer {
  return Buffer.allocUnsafe(Math.min(entriesLeft, PIECE_ENTRIES_MAX) * ENTRY_BYTES)
}

/** An entry of the object, of which the hash and the number of the request are still to be written. */
function entryOf(objectId: string): Buffer {
  const entry = Buffer.alloc(ENTRY_BYTES)
  entry.writeInt16BE(3, 0)
  entry.writeInt32BE(8, HASH_AT - 4)
  entry.writeInt32BE(16, OBJECT_AT - 4)
  entry.write(objectId.replaceAll('-', ''), OBJECT_AT, 'hex')
  entry.writeInt32BE(2, REQUEST_AT - 4)
  return entry
}
