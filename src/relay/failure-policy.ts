import type { Failure } from '../foundation/failure.ts'

/** What to do with a batch that could not be stored. */
export type Verdict =
  /** Nobody's fault: retried whole, for ever. */
  | 'retry'
  /** Retried, and the attempt counts against the single row. */
  | 'count'
  /** Halved, to find the row at fault. */
  | 'split'
  /** The single row is moved to the dead letters. */
  | 'bury'

export interface BatchHistory {
  rows: number
  /** Failures counted against the row so far, without this one. */
  attempts: number
  /** True when the batch failed before with this very error. */
  failedAlike: boolean
}

export interface Circumstances {
  attemptsMax: number
  /** True when other batches were stored lately: then an error that nobody knows is this batch's own. */
  othersSucceed: boolean
}

/**
 * Who is to blame, and so what happens. Outages and faults of the configuration are the fault of no row. An error
 * that nobody classified is taken for an outage at first, and for the data's fault when it comes again while other
 * batches succeed.
 */
export function judge(failure: Failure, batch: BatchHistory, circumstances: Circumstances): Verdict {
  switch (failure.kind) {
    case 'outage':
    case 'configuration':
      return 'retry'
    case 'bug':
      return batch.failedAlike && circumstances.othersSucceed ? blameData(batch, circumstances) : 'retry'
    case 'data':
    case 'client':
      return blameData(batch, circumstances)
  }
}

/** Holders that may vanish with a batch before it is suspected of killing them. */
const TAKEOVERS_MAX = 3

/**
 * A batch whose third holder vanished is halved like one that failed for its data. A single row gets as many holders
 * as it would get attempts before it is buried: workers vanish for other reasons too.
 */
export function judgeTakenOver(
  batch: { rows: number; takeovers: number },
  { attemptsMax }: Pick<Circumstances, 'attemptsMax'>,
): 'write' | 'split' | 'bury' {
  if (batch.takeovers < TAKEOVERS_MAX) return 'write'
  if (batch.rows > 1) return 'split'
  return batch.takeovers < attemptsMax ? 'write' : 'bury'
}

function blameData(batch: BatchHistory, { attemptsMax }: Circumstances): Verdict {
  if (batch.rows > 1) return 'split'
  return batch.attempts + 1 >= attemptsMax ? 'bury' : 'count'
}
