import { invariant } from '../foundation/failure.ts'
import { type Encoding, encodingNumbers, type Signal, signals } from '../otlp/signal.ts'
import type { QueueRecord } from './batch.ts'

/** One accepted request as it enters the queue. */
export interface StagedRow {
  signal: Signal
  tenant: string
  encoding: Encoding
  items: number
  unpackedBytes: number
  requestId: string
  summary: Buffer
  payload: Buffer
}

/** The statement that `encodeRows` writes for: the columns in the order of its fields. */
export const stageText =
  'COPY ingestion_queue (signal, tenant, encoding, items, bytes, unpacked_bytes, request_id, summary, payload) ' +
  'FROM STDIN (FORMAT binary)'

// PostgreSQL documentation, COPY, "Binary Format": signature, flags, length of the header extension.
const header = Buffer.from('5047434f50590aff0d0a000000000000000000', 'hex')
const FIELD_COUNT = 9
// Two int2 and three int4 with their lengths, four lengths of variable fields, the field count.
const FIXED_BYTES = 2 + 2 * (4 + 2) + 3 * (4 + 4) + 4 * 4
const TRAILER_BYTES = 2

/** Bytes that a row takes in a group. Tenants and request ids are ASCII. */
export function rowBytes(row: StagedRow): number {
  return FIXED_BYTES + row.tenant.length + row.requestId.length + row.summary.length + row.payload.length
}

/** A payload of more is sent from where it lies, in pieces of this size, because the driver copies what it is given. */
const PIECE_BYTES = 256 * 1024

/**
 * The rows in PostgreSQL's binary COPY format, as pieces to be sent one after the other: one piece, with one allocation and one
 * copy of each payload, unless there are large ones.
 */
export function encodeRows(rows: readonly StagedRow[]): Buffer[] {
  let total = header.length + TRAILER_BYTES
  for (const row of rows) total += rowBytes(row) - (isLarge(row) ? row.payload.length : 0)
  const out = Buffer.allocUnsafe(total)
  const pieces: Buffer[] = []
  let pieceAt = 0
  let at = header.copy(out)
  for (const row of rows) {
    at = out.writeInt16BE(FIELD_COUNT, at)
    at = out.writeInt16BE(signals[row.signal].number, out.writeInt32BE(2, at))
    at = out.writeInt32BE(row.tenant.length, at)
    at += out.write(row.tenant, at, 'latin1')
    at = out.writeInt16BE(encodingNumbers[row.encoding], out.writeInt32BE(2, at))
    at = out.writeInt32BE(row.items, out.writeInt32BE(4, at))
    at = out.writeInt32BE(row.payload.length, out.writeInt32BE(4, at))
    at = out.writeInt32BE(row.unpackedBytes, out.writeInt32BE(4, at))
    at = out.writeInt32BE(row.requestId.length, at)
    at += out.write(row.requestId, at, 'latin1')
    at = out.writeInt32BE(row.summary.length, at)
    at += row.summary.copy(out, at)
    at = out.writeInt32BE(row.payload.length, at)
    if (isLarge(row)) {
      pieces.push(out.subarray(pieceAt, at), ...piecesOf(row.payload))
      pieceAt = at
    } else at += row.payload.copy(out, at)
  }
  out.writeInt16BE(-1, at)
  pieces.push(out.subarray(pieceAt))
  return pieces
}

function isLarge({ payload }: StagedRow): boolean {
  return payload.length > PIECE_BYTES
}

function piecesOf(payload: Buffer): Buffer[] {
  const pieces: Buffer[] = []
  for (let at = 0; at < payload.length; at += PIECE_BYTES) pieces.push(payload.subarray(at, at + PIECE_BYTES))
  return pieces
}

/** A payload of more has memory of its own, which can be given back at once; a smaller one shares what it came in. */
const SHARED_BYTES_MAX = 32 * 1024

/**
 * The rows of a COPY … TO STDOUT (FORMAT binary) of id, signal, tenant, encoding, items, bytes, request_id, summary and payload,
 * where `pieces` have at most one row each.
 */
export function decodeRecords(pieces: readonly Buffer[]): QueueRecord[] {
  const records: QueueRecord[] = []
  let isFirst = true
  for (const piece of pieces) {
    let at = 0
    if (isFirst) {
      isFirst = false
      invariant(piece.subarray(0, header.length).equals(header), 'what is copied does not begin as it should')
      at = header.length
    }
    if (at === piece.length) continue
    const fields = piece.readInt16BE(at)
    if (fields === -1) continue
    invariant(fields === FIELD_COUNT, `a copied row of ${fields} fields`)
    records.push(decodeRecord(piece, at + 2))
  }
  return records
}

function decodeRecord(piece: Buffer, start: number): QueueRecord {
  let at = start
  /** Goes to the next field; false for null. */
  let end = start
  const next = () => {
    const length = piece.readInt32BE(end)
    at = end + 4
    end = at + Math.max(0, length)
    return length !== -1
  }
  next()
  const id = piece.readBigInt64BE(at)
  next()
  const signal = piece.readInt16BE(at)
  next()
  const tenant = piece.toString('latin1', at, end)
  next()
  const encoding = piece.readInt16BE(at)
  next()
  const items = piece.readInt32BE(at)
  next()
  const bytes = piece.readInt32BE(at)
  next()
  const request_id = piece.toString('latin1', at, end)
  next()
  const summary = piece.subarray(at, end)
  const payload = next() ? payloadOf(piece.subarray(at, end)) : null
  return { id, signal, tenant, encoding, items, bytes, request_id, summary, payload }
}

function payloadOf(shared: Buffer): Buffer {
  if (shared.length <= SHARED_BYTES_MAX) return shared
  const own = Buffer.allocUnsafeSlow(shared.length)
  shared.copy(own)
  return own
}
