import { systemClock } from '../../src/foundation/clock.ts'
import { encodeSummary } from '../../src/otlp/summary.ts'
import { closePool } from '../../src/postgres/pool.ts'
import type { StagedRow } from '../../src/queue/copy-format.ts'
import { Stager } from '../../src/queue/stage.ts'
import type { TestDatabase } from '../support/postgres.ts'

export const emptySummary = encodeSummary({
  minTimeUnixNano: undefined,
  maxTimeUnixNano: undefined,
  services: [],
  traceHashes: new BigInt64Array(),
  cut: false,
})

export function row(payload: string | Buffer, changes: Partial<StagedRow> = {}): StagedRow {
  const bytes = Buffer.from(payload)
  return {
    signal: 'traces',
    tenant: 'default',
    encoding: 'identity',
    items: 1,
    unpackedBytes: bytes.length,
    requestId: 'request',
    summary: emptySummary,
    payload: bytes,
    ...changes,
  }
}

export function stagerOn(database: TestDatabase, onUnknown?: (rows: number) => void): Stager {
  return new Stager({
    open: (onNotice) => database.open({ name: 'stager', connections: 1, onNotice }),
    close: (sql) => closePool(sql, 200),
    clock: systemClock,
    ...(onUnknown === undefined ? {} : { onUnknown }),
  })
}

/** Stages the rows one after the other, so that their ids are in the order given. */
export async function stageAll(database: TestDatabase, rows: readonly StagedRow[]): Promise<void> {
  const stager = stagerOn(database)
  await stager.start()
  try {
    for (const one of rows) await stager.append(one)
  } finally {
    await stager.stop()
  }
}
