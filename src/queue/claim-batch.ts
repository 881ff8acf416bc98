import { randomUUID } from 'node:crypto'
import { v7 as uuidv7 } from 'uuid'
import { copyOut } from '../postgres/copy.ts'
import { answerOf, type Sql } from '../postgres/pool.ts'
import { inlineStatement } from '../postgres/statement.ts'
import type { Batch, BatchId, LeaseToken } from './batch.ts'
import { decodeRecords } from './copy-format.ts'
import { PAYLOAD_ALONG_BYTES_MAX, readPayloads } from './read-payloads.ts'

/** A protobuf message ends at 2 GiB; a batch stays far below it once unpacked. */
const UNPACKED_BYTES_MAX = 128 * 1024 * 1024

export interface ClaimOptions {
  owner: string
  leaseSeconds: number
  rowsMax: number
  bytesMax: number
  /** Take the first row even if it is larger than `bytesMax`. */
  firstAnySize: boolean
  /** Rows with lower ids are left alone; none unless told. */
  from?: bigint
}

const claim = inlineStatement('queue/claim_batch')

/**
 * Makes a batch of the oldest pending rows that nobody else is claiming, within the bounds. Undefined when nothing was
 * pending that fits. Durable when it answers, so that no object can belong to a claim that a crash undid.
 */
export async function claimBatch(sql: Sql, options: ClaimOptions): Promise<Batch | undefined> {
  const batchId = uuidv7() as BatchId
  const leaseToken = randomUUID() as LeaseToken
  const rowsText = claim([
    batchId,
    leaseToken,
    options.owner,
    options.leaseSeconds,
    options.rowsMax,
    options.bytesMax,
    UNPACKED_BYTES_MAX,
    options.firstAnySize,
    PAYLOAD_ALONG_BYTES_MAX,
    options.from ?? 0n,
  ])
  const text = `COPY (${rowsText}) TO STDOUT (FORMAT binary)`
  const records = decodeRecords(await answerOf(sql, copyOut(sql, text)))
  if (records.length === 0) return undefined
  const rows = await readPayloads(sql, { batchId, leaseToken }, records)
  return {
    batchId,
    leaseToken,
    rows,
    expectedRows: rows.length,
    bytes: rows.reduce((sum, row) => sum + row.bytes, 0),
    isFirstHold: true,
    attempts: 0,
    outages: 0,
    takeovers: 0,
    lastError: null,
  }
}
