import type { Encoding, Signal } from '../otlp/signal.ts'
import { encodingOfNumber, signalOfNumber } from '../otlp/signal.ts'

/** UUIDv7 of a batch. */
export type BatchId = string & { readonly brand: 'BatchId' }
/** Proves the right to a batch; another holder has another one. */
export type LeaseToken = string & { readonly brand: 'LeaseToken' }

/** One request as it waits in a claimed batch. */
export interface QueuedRow {
  id: bigint
  signal: Signal
  tenant: string
  encoding: Encoding
  items: number
  bytes: number
  requestId: string
  /** As staged: whoever reads it decides what a row that cannot be read means. */
  summary: Buffer
  payload: Buffer
}

/** What it takes to settle a batch. */
export interface Lease {
  batchId: BatchId
  leaseToken: LeaseToken
}

/** A batch in a worker's hands. `rows` are in the order of their ids. */
export interface Batch extends Lease {
  rows: readonly QueuedRow[]
  /** The rows that the batch row says it has; another number than `rows.length` is a broken invariant. */
  expectedRows: number
  bytes: number
  /** True from the claim; false once anybody else has held it or it has failed. */
  isFirstHold: boolean
  attempts: number
  outages: number
  takeovers: number
  lastError: string | null
}

/** A row of `ingestion_queue` as the driver answers it. */
export interface QueueRecord {
  id: bigint
  signal: number
  tenant: string
  encoding: number
  items: number
  bytes: number
  request_id: string
  summary: Buffer
  /** Null for a payload that is too large to come along. */
  payload: Buffer | null
}

/** The row as the relay knows it. */
export function queuedRow(record: QueueRecord, payload: Buffer): QueuedRow {
  return {
    id: record.id,
    signal: signalOfNumber(record.signal),
    tenant: record.tenant,
    encoding: encodingOfNumber(record.encoding),
    items: record.items,
    bytes: record.bytes,
    requestId: record.request_id,
    summary: record.summary,
    payload,
  }
}
