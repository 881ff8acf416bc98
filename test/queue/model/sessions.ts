import { asFailure, type Failure } from '../../../src/foundation/failure.ts'
import type { Sql } from '../../../src/postgres/pool.ts'
import { classifyPostgresError } from '../../../src/postgres/sqlstate.ts'
import type { Batch, BatchId } from '../../../src/queue/batch.ts'
import { claimBatch } from '../../../src/queue/claim-batch.ts'
import { replayDeadLetters } from '../../../src/queue/dead-letters.ts'
import { renewLeases } from '../../../src/queue/renew-leases.ts'
import {
  absolveBatch,
  buryBatch,
  completeBatch,
  failBatch,
  findSettled,
  releaseBatch,
  type Settled,
  splitBatch,
} from '../../../src/queue/settle.ts'
import type { Stager } from '../../../src/queue/stage.ts'
import { takeOverBatch } from '../../../src/queue/take-over-batch.ts'
import { objectKeysOfBatch } from '../../../src/sink/object.ts'
import { row } from '../rows.ts'
import { Disagreement } from './disagreement.ts'
import { LEASE_SECONDS } from './queue-steps.ts'
import { type Ending, objectsOf } from './settle-steps.ts'
import { pick } from './steps.ts'

/** What all sessions together know: nothing of it comes from the tables. */
export interface Ledger {
  stager: Stager
  /** What was done, in the order of the answers. */
  steps: string[]
  requestCount: number
  answered: Set<string>
  /** Appended with an answer that was lost: stored once or not at all. */
  unknown: Set<string>
  /** Names of the requests whose rows somebody was given. */
  names: Map<string, string>
  /** Ids of batches in the order in which they were given out. */
  batchIds: string[]
  /** What ended each batch, as those heard who ended it. */
  endings: Map<BatchId, Ending['how'][]>
  /** Objects by their keys. */
  store: Map<string, Buffer>
}

export function emptyLedger(stager: Stager, steps: string[]): Ledger {
  return {
    stager,
    steps,
    requestCount: 0,
    answered: new Set(),
    unknown: new Set(),
    names: new Map(),
    batchIds: [],
    endings: new Map(),
    store: new Map(),
  }
}

/** The batch as people talk of it. */
export function batchName({ batchIds }: Ledger, batchId: string): string {
  if (!batchIds.includes(batchId)) batchIds.push(batchId)
  return `batch ${batchIds.indexOf(batchId) + 1}`
}

/** One worker with a connection of its own. */
export interface Session {
  name: string
  sql: Sql
  /** Batches that it was given and remembers, whatever has become of them. */
  hands: Batch[]
}

/** Answers what happened, in plain words. */
export type SessionStep = (session: Session, ledger: Ledger) => Promise<string>

const verbs: Readonly<Record<Ending['how'], string>> = {
  complete: 'puts and completes',
  fail: 'fails',
  split: 'splits',
  release: 'releases',
  bury: 'buries',
}

const TRIES_MAX = 200

/** All of them at the same time, each a step after the other. What stops one lets the others come to their ends. */
export async function runAtOnce(
  sessions: readonly Session[],
  programs: readonly (readonly SessionStep[])[],
  ledger: Ledger,
): Promise<void> {
  const ends = await Promise.allSettled(
    sessions.map(async (session, index) => {
      session.hands = []
      for (const step of programs[index] ?? []) {
        ledger.steps.push(`${session.name} ${await step(session, ledger)}`)
      }
    }),
  )
  for (const end of ends) if (end.status === 'rejected') throw end.reason
}

/** Like the relay: whatever an outage leaves open is said again until somebody answers. */
async function untilAnswered<T>(say: () => Promise<T>): Promise<T> {
  let last: Failure | undefined
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    try {
      return await say()
    } catch (thrown) {
      last = classifyPostgresError(thrown)
      if (last.kind !== 'outage') throw last
    }
  }
  throw last
}

export function sessionAppend(count: number): SessionStep {
  return async (_session, ledger) => {
    const names = Array.from({ length: count }, () => `request ${++ledger.requestCount}`)
    const answers = await Promise.all(
      names.map(async (name) => {
        try {
          await ledger.stager.append(row(name, { requestId: name }))
          ledger.answered.add(name)
          return name
        } catch (thrown) {
          if (asFailure(thrown).kind !== 'outage') throw thrown
          ledger.unknown.add(name)
          return `${name} (nobody knows)`
        }
      }),
    )
    return `appends ${answers.join(', ')}`
  }
}

export function sessionClaim(rowsMax: number): SessionStep {
  return async (session, ledger) => {
    const options = { owner: session.name, leaseSeconds: LEASE_SECONDS, bytesMax: 1_000_000, rowsMax }
    // A claim whose answer is lost is a crash: its batch waits for its lease to run out.
    const batch = await claimBatch(session.sql, { ...options, firstAnySize: true }).catch(outageIsNothing)
    return `claims ${given(session, ledger, batch)}`
  }
}

export function sessionTakeOver(rowsMax: number): SessionStep {
  return async (session, ledger) => {
    const options = { owner: session.name, leaseSeconds: LEASE_SECONDS, bytesMax: 1_000_000, rowsMax }
    const batch = await takeOverBatch(session.sql, options).catch(outageIsNothing)
    if (batch !== undefined && batch.rows.length !== batch.expectedRows) {
      const name = batchName(ledger, batch.batchId)
      throw new Disagreement(`${name} says ${batch.expectedRows} rows and has ${batch.rows.length}`)
    }
    return `takes over ${given(session, ledger, batch)}`
  }
}

function outageIsNothing(thrown: unknown): undefined {
  if (asFailure(thrown).kind !== 'outage') throw thrown
  return undefined
}

function given(session: Session, ledger: Ledger, batch: Batch | undefined): string {
  if (batch === undefined) return 'nothing'
  session.hands.unshift(batch)
  for (const { id, requestId } of batch.rows) ledger.names.set(String(id), requestId)
  return `${batchName(ledger, batch.batchId)} with ${batch.rows.map(({ requestId }) => requestId).join(', ')}`
}

/** Ends the batch at `number`, counted from the last one that it was given: a small number is a batch of its own. */
export function sessionEnd(ending: Ending, number: number): SessionStep {
  return async (session, ledger) => {
    const batch = pick(session.hands, number)
    if (batch === undefined) return 'has nothing to end'
    const outcome = await untilAnswered(() => settle(session.sql, ledger, batch, ending))
    if (outcome === 'settled') {
      if (ending.how !== 'fail') {
        ledger.endings.set(batch.batchId, [...(ledger.endings.get(batch.batchId) ?? []), ending.how])
      }
    } else if (!(await untilAnswered(() => findSettled(session.sql, batch.batchId)))) {
      await untilAnswered(() => absolveBatch(session.sql, batch.batchId))
    }
    return `${verbs[ending.how]} ${batchName(ledger, batch.batchId)}: ${outcome}`
  }
}

function settle(sql: Sql, ledger: Ledger, batch: Batch, ending: Ending): Promise<Settled> {
  const keys = objectKeysOfBatch(batch.batchId, batch.rows)
  switch (ending.how) {
    case 'complete': {
      const objects = objectsOf(batch)
      for (const { key, body } of objects) putOnce(ledger, key, body)
      const entries = objects.map((object) => ({ ...object, bucket: 'telemetry' }))
      return completeBatch(sql, batch, entries)
    }
    case 'fail':
      return failBatch(sql, batch, ending.options)
    case 'split':
      return splitBatch(sql, batch, keys, ending.error)
    case 'release':
      return releaseBatch(sql, batch, keys)
    case 'bury':
      return buryBatch(sql, batch, keys, ending.options)
  }
}

/** As `If-None-Match: *`: what is there stays, and must be the same. */
function putOnce(ledger: Ledger, key: string, body: Buffer): void {
  const there = ledger.store.get(key)
  if (there !== undefined && !there.equals(body)) throw new Disagreement(`${key} was put with other bytes`)
  ledger.store.set(key, body)
}

export function sessionRenew(): SessionStep {
  return async (session) => {
    const held = await renewLeases(session.sql, session.hands, LEASE_SECONDS).catch(outageIsNothing)
    return `renews ${held?.size ?? 'nobody knows how many'} of ${session.hands.length}`
  }
}

export function sessionCrash(): SessionStep {
  return async (session) => {
    session.hands = []
    return 'crashes and forgets what it had'
  }
}

/** Time passes for every batch: leases run out and pauses end, while others are at work. */
export function sessionTimePasses(): SessionStep {
  return async ({ sql }) => {
    await untilAnswered(
      async () =>
        await sql`
        UPDATE ingestion_batch SET
          lease_until = least(lease_until, clock_timestamp()),
          next_attempt_at = least(next_attempt_at, clock_timestamp())`,
    )
    return 'lets time pass'
  }
}

export function sessionReplay(rowsMax: number): SessionStep {
  return async ({ sql }) => {
    const piece = { after: 0n, last: 2n ** 62n, rowsMax, bytesMax: 1_000_000 }
    const moved = await untilAnswered(() => replayDeadLetters(sql, {}, piece))
    return `replays ${moved.rows}`
  }
}

/** Cuts the connections of others in the middle of whatever they say. */
export function sessionCut(name: string): SessionStep {
  return async ({ sql }) => {
    await untilAnswered(
      async () =>
        await sql`
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = ${name} AND pid <> pg_backend_pid()`,
    )
    return `cuts the connections of ${name}`
  }
}
