import { type Encoding, encodingNumbers, type Signal, signals } from '../otlp/signal.ts'

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
