import { setTimeout as wait } from 'node:timers/promises'
import { expect, type Fault, type FaultContext } from './fault.ts'
import type { ProxyMode } from './proxy.ts'
import { LEASE_SECONDS, type Scene } from './scene.ts'

const longerThanLeaseMs = (LEASE_SECONDS + 2) * 1000
const backWithinMs = 15_000
/** What an ingress promises for its answers, whatever the database does. */
const answerWithinMs = 8_000
/** For a client and an ingress on a machine that is busy with everything else. */
const clientMs = 1_000

const slowDown =
  '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate</Message></Error>'
const slowDownAnswer = Buffer.from(
  'HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nConnection: close\r\n' +
    `Content-Length: ${slowDown.length}\r\n\r\n${slowDown}`,
)

/** The store away for longer than a lease: no sender hears of it, and nobody is blamed. */
function storeOutage(name: string, mode: ProxyMode, code: string | undefined): Fault {
  return {
    name,
    async bring({ scene }) {
      const { ledger, stage } = scene
      const before = refusals(scene)
      const attempts = await whileStoreIsAway(scene, mode)
      const stored = ledger.count('stored')
      expect(refusals(scene) === before, 'a sender heard of the outage of the store')
      expect(attempts === 0, `${attempts} attempts were counted against rows`)
      expect(await scene.moreStored(60, backWithinMs), 'afterwards 60 requests were not answered 200')
      const lines = scene.workers.flatMap(({ log }) =>
        log.filter(({ event }) => event === 'batch_persist_failed'),
      )
      const reasons = new Set(lines.map(({ reason }) => reason))
      expect(
        reasons.size === 1 && reasons.has('outage'),
        `batch_persist_failed with the reasons ${[...reasons].join(', ') || 'none'}`,
      )
      if (code !== undefined) {
        expect(
          lines.some((line) => JSON.stringify(line).includes(code)),
          `no line of the log names ${code}`,
        )
      }
      return `${stored} × 200 by the end of it, ${lines.length} × batch_persist_failed, all outage, ${await deadLetters(stage)} dead letters`
    },
  }
}

/** Answers the attempts counted against batches at its end. */
async function whileStoreIsAway({ stage }: Scene, mode: ProxyMode): Promise<number> {
  stage.proxy.set(mode)
  await wait(longerThanLeaseMs)
  const [row] = await stage.sql<{ attempts: number }[]>`
    SELECT coalesce(sum(attempts), 0)::int AS attempts FROM ingestion_batch`
  stage.proxy.set({ kind: 'open' })
  return row?.attempts ?? -1
}

/** The database away for longer than a lease: 503 in time, and everything goes on without a restart. */
function databaseOutage(name: string, mode: ProxyMode): Fault {
  return {
    name,
    async bring(context) {
      const { scene } = context
      scene.databaseProxy.set(mode)
      await wait(longerThanLeaseMs)
      scene.databaseProxy.set({ kind: 'open' })
      return await afterDatabaseOutage(context)
    },
  }
}

/** Checks what senders heard of a database that was away and is back, and says it. */
export async function afterDatabaseOutage({ scene }: Pick<FaultContext, 'scene'>): Promise<string> {
  const sinceMs = performance.now()
  expect(await scene.moreStored(60, backWithinMs), 'afterwards 60 requests were not answered 200')
  const backMs = performance.now() - sinceMs
  const { ledger } = scene
  const refused = ledger.withStatus(503)
  expect(refused.length > 0, 'no sender got a 503, so the database was not away')
  expectRetryable(scene)
  const slowestMs = Math.max(...refused.map(({ answer }) => answer.tookMs))
  expect(slowestMs < answerWithinMs + clientMs, `a sender waited ${Math.round(slowestMs)} ms for its 503`)
  for (const { answer } of refused) {
    const retryAfter = answer.kind === 'answered' ? answer.retryAfter : undefined
    expect(/^[1-5]$/.test(retryAfter ?? ''), `a 503 said Retry-After ${retryAfter ?? 'nothing'}`)
  }
  return `${ledger.describe()}, the slowest 503 after ${(slowestMs / 1000).toFixed(1)} s; 60 × 200 within ${(backMs / 1000).toFixed(1)} s`
}

/** An outage of the database is no reason for a sender to throw data away. */
export function expectRetryable({ ledger }: Scene): void {
  const others = ledger.select(
    ({ answer }) => answer.kind === 'answered' && ![200, 503].includes(answer.status),
  )
  expect(others.length === 0, `senders were told to throw data away: ${ledger.describe()}`)
}

function refusals({ ledger }: Scene): number {
  return ledger.select(({ answer }) => answer.kind === 'answered' && answer.status !== 200).length
}

export async function deadLetters({ sql }: Scene['stage']): Promise<number> {
  const [row] = await sql<{ rows: number }[]>`SELECT count(*)::int AS rows FROM dead_letter`
  return row?.rows ?? -1
}

export const outageFaults: readonly Fault[] = [
  databaseOutage('PostgreSQL refuses for longer than a lease', { kind: 'refused' }),
  databaseOutage('PostgreSQL is silent for longer than a lease', { kind: 'silent' }),
  storeOutage('MinIO refuses for longer than a lease', { kind: 'refused' }, undefined),
  storeOutage('MinIO takes requests and is silent (H2)', { kind: 'answers held' }, undefined),
  storeOutage(
    'MinIO answers SlowDown for longer than a lease (H1)',
    { kind: 'answered', bytes: slowDownAnswer },
    'SlowDown',
  ),
]
