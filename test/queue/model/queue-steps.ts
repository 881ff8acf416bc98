import { Failure } from '../../../src/foundation/failure.ts'
import {
  findAbandoned,
  forgetAbandoned,
  lockSweeping,
  markSwept,
  maySweep,
  unlockSweeping,
} from '../../../src/queue/abandoned.ts'
import type { Batch } from '../../../src/queue/batch.ts'
import { claimBatch } from '../../../src/queue/claim-batch.ts'
import type { StagedRow } from '../../../src/queue/copy-format.ts'
import { countBacklog } from '../../../src/queue/count-backlog.ts'
import { countPending } from '../../../src/queue/count-pending.ts'
import { hasDueBatch } from '../../../src/queue/has-due-batch.ts'
import { renewLeases } from '../../../src/queue/renew-leases.ts'
import { summariseQueue } from '../../../src/queue/summarise-queue.ts'
import { takeOverBatch } from '../../../src/queue/take-over-batch.ts'
import { row } from '../rows.ts'
import { agree } from './disagreement.ts'
import { bytesOf, type Model, type ModelBatch, type ModelRequest } from './model.ts'
import { type Planner, pick, type Stand } from './steps.ts'

export const LEASE_SECONDS = 3_600
/** More would only wait. */
const PENDING_MAX = 12

export interface NewRequest extends Pick<StagedRow, 'signal' | 'tenant' | 'encoding' | 'items'> {
  padding: number
  /** Says that it unpacks to so much; 0 for what it is. */
  unpackedBytes: number
}

/** Requests that arrive at the same moment; with `isSpoilt` one more among them, which PostgreSQL refuses. */
export function append(requests: readonly NewRequest[], isSpoilt: boolean): Planner {
  return (model) => {
    if (model.pending.length >= PENDING_MAX) return undefined
    const names = model.nextNames(requests.length)
    const rows = requests.map(({ padding, unpackedBytes, ...kind }, index) => {
      const name = names[index] ?? ''
      const payload = `${name}${'.'.repeat(padding)}`
      return row(payload, { ...kind, requestId: name, unpackedBytes: unpackedBytes || payload.length })
    })
    const spoilt = isSpoilt ? [row('spoilt', { tenant: 'no tenant' })] : []
    return {
      words: `${names.join(', ')} ${names.length === 1 ? 'arrives' : 'arrive'}${isSpoilt ? ', with one that PostgreSQL refuses' : ''}`,
      by: 'append',
      act: async ({ sql, stager }) => {
        const refusals: unknown[] = []
        await Promise.all([
          ...rows.map((one) => stager.append(one)),
          ...spoilt.map((one) => stager.append(one).catch((thrown) => refusals.push(thrown))),
        ])
        agree(
          'kinds of refusals',
          refusals.map((thrown) => (thrown instanceof Failure ? thrown.kind : thrown)),
          spoilt.map(() => 'data'),
        )
        const staged = await sql<{ id: bigint; name: string; received: string }[]>`
          SELECT id, request_id AS name, to_jsonb(received_at) #>> '{}' AS received FROM ingestion_queue
          WHERE batch_id IS NULL`
        const found = new Map(staged.map((one) => [one.name, one]))
        for (const one of rows) {
          const { id = 0n, received = 'never' } = found.get(one.requestId) ?? {}
          model.append({ name: one.requestId, id, receivedAt: received, staged: one })
        }
        return ''
      },
    }
  }
}

export interface ClaimBounds {
  worker: string
  rowsMax: number
  bytesMax: number
  firstAnySize: boolean
  /** Ask even when there is nothing that fits. */
  isProbe: boolean
}

export function claim({ worker, isProbe, ...bounds }: ClaimBounds): Planner {
  return (model) => {
    const expected = model.claimable(bounds)
    if (expected.length === 0 && !isProbe) return undefined
    const { rowsMax, bytesMax, firstAnySize } = bounds
    return {
      words: `${worker} claims up to ${rowsMax} rows and ${bytesMax} bytes${firstAnySize ? ', the first of any size' : ''}`,
      by: 'claim',
      act: async ({ sql }) => {
        const options = { owner: worker, leaseSeconds: LEASE_SECONDS, ...bounds }
        const batch = await claimBatch(sql, options)
        agreeOnRows('claimed', batch, expected)
        if (batch === undefined) return 'nothing'
        const history = { isFirstHold: true, attempts: 0, outages: 0, takeovers: 0, lastError: null }
        agreeOnHistory(batch, history)
        model.claim({ worker, batch }, expected)
        return `gets ${model.nameOf(batch.batchId)} with ${namesOf(expected)}`
      },
    }
  }
}

export function takeOver({ worker, rowsMax, bytesMax, isProbe }: Omit<ClaimBounds, 'firstAnySize'>): Planner {
  return (model) => {
    const takeable = model.takeable({ rowsMax, bytesMax })
    if (takeable.length === 0 && !isProbe) return undefined
    return {
      words: `${worker} takes over a batch of up to ${rowsMax} rows and ${bytesMax} bytes`,
      by: 'take over',
      act: async ({ sql }) => {
        const options = { owner: worker, leaseSeconds: LEASE_SECONDS, rowsMax, bytesMax }
        const batch = await takeOverBatch(sql, options)
        if (batch === undefined) {
          agree(
            'batches that could be taken over',
            [],
            takeable.map(({ id }) => model.nameOf(id)),
          )
          return 'there is none'
        }
        const taken = takeable.find(({ id }) => id === batch.batchId)
        agree(`${model.nameOf(batch.batchId)} is the next to be taken over`, true, taken !== undefined)
        if (taken === undefined) return ''
        agreeOnRows('taken over', batch, taken.requests)
        model.takeOver({ worker, batch }, taken)
        const { attempts, outages, takeovers, lastError } = taken
        agreeOnHistory(batch, { isFirstHold: false, attempts, outages, takeovers, lastError })
        return `gets ${model.nameOf(batch.batchId)} with ${namesOf(taken.requests)}`
      },
    }
  }
}

/** A worker renews everything that it thinks it holds. */
export function renew(worker: string): Planner {
  return (model) => {
    const hands = model.hands.filter((hand) => hand.worker === worker)
    if (hands.length === 0) return undefined
    const held = hands.filter((hand) => model.holds(hand)).map(({ batch }) => batch.batchId)
    return {
      words: `${worker} renews its leases`,
      by: 'renew',
      act: async ({ sql }) => {
        const leases = hands.map(({ batch }) => batch)
        const answer = await renewLeases(sql, leases, LEASE_SECONDS)
        const named = (ids: Iterable<string>) => [...ids].map((id) => model.nameOf(id)).toSorted()
        agree('leases that are still held', named(answer), named(new Set(held)))
        for (const id of held) {
          const batch = model.batches.get(id)
          if (batch !== undefined) batch.isOpen = false
        }
        return `keeps ${named(held).join(', ') || 'none'}`
      },
    }
  }
}

/** The worker is gone with everything it had in memory; the database hears nothing of it. */
export function crash(worker: string): Planner {
  return (model) => {
    if (!model.hands.some((hand) => hand.worker === worker)) return undefined
    return {
      words: `${worker} crashes and forgets what it had`,
      by: undefined,
      act: async () => {
        const others = model.hands.filter((hand) => hand.worker !== worker)
        model.hands.splice(0, model.hands.length, ...others)
        return ''
      },
    }
  }
}

/** Time passes: a lease runs out or the pause of a failed batch ends. */
export function timePasses(status: ModelBatch['status'], number: number): Planner {
  return (model) => {
    const closed = [...model.batches.values()].filter((batch) => batch.status === status && !batch.isOpen)
    const batch = pick(closed, number)
    if (batch === undefined) return undefined
    const name = model.nameOf(batch.id)
    const isLease = status === 'processing'
    return {
      words: isLease ? `the lease of ${name} runs out` : `the pause of ${name} ends`,
      by: isLease ? 'lease runs out' : 'pause ends',
      act: async ({ sql }) => {
        if (isLease) {
          await sql`UPDATE ingestion_batch SET lease_until = clock_timestamp() WHERE batch_id = ${batch.id}`
        } else {
          await sql`UPDATE ingestion_batch SET next_attempt_at = clock_timestamp() WHERE batch_id = ${batch.id}`
        }
        model.open(batch)
        return ''
      },
    }
  }
}

/** The sweeper looks at everything that was left over, as if each were old enough. */
export function sweep(): Planner {
  return (model) => {
    if (model.abandoned.length === 0) return undefined
    return {
      words: 'the sweeper looks',
      by: 'sweep',
      act: async ({ sql }) => {
        agree('the right to sweep', await lockSweeping(sql), true)
        const found = await findAbandoned(sql, 0, 1_000)
        const inOrder = (batches: typeof found) =>
          batches.toSorted((a, b) => (a.batchId < b.batchId ? -1 : 1))
        const expected = model.abandoned.map(({ batchId, keys, isLookedAt }) => ({
          batchId,
          secondLook: isLookedAt,
          keys: keys.filter((key) => !model.catalog.has(key)).toSorted(),
        }))
        agree('what the sweeper finds', inOrder(found), inOrder(expected))
        for (const { batchId, secondLook, keys } of found) {
          for (const key of keys) {
            agree(`${key} may be deleted`, await maySweep(sql, batchId, key), true)
            model.store.delete(key)
          }
          await (secondLook ? forgetAbandoned(sql, batchId) : markSwept(sql, batchId))
        }
        await unlockSweeping(sql)
        const left = model.abandoned.filter(({ isLookedAt }) => !isLookedAt)
        const lookedAt = left.map((one) => ({ ...one, isLookedAt: true }))
        model.abandoned.splice(0, model.abandoned.length, ...lookedAt)
        return ''
      },
    }
  }
}

/** What people and pollers are told agrees with the tables. */
export function count(): Planner {
  return (model) => ({
    words: 'everything is counted',
    by: undefined,
    act: async (stand) => {
      await agreeOnCounts(model, stand)
      return ''
    },
  })
}

async function agreeOnCounts(model: Model, { sql }: Stand): Promise<void> {
  const inBatches = (status: ModelBatch['status']) =>
    [...model.batches.values()].filter((batch) => batch.status === status)
  const failed = inBatches('failed')
  const requestsOf = (batches: readonly ModelBatch[]) => batches.flatMap(({ requests }) => requests)
  const dead = model.dead.map(({ request }) => request)
  const bytes = (requests: readonly ModelRequest[]) =>
    requests.reduce((sum, { staged }) => sum + staged.payload.length, 0)
  const backlog = await countBacklog(sql, 1_000)
  agree(
    'the backlog',
    { rows: backlog.rows, bytes: backlog.bytes },
    {
      rows: model.pending.length + requestsOf(failed).length,
      bytes: bytes(model.pending) + failed.reduce((sum, batch) => sum + bytesOf(batch), 0),
    },
  )
  agree('pending rows, up to 2', (await countPending(sql, 2)).rows, Math.min(2, model.pending.length))
  agree(
    'a batch is due',
    await hasDueBatch(sql),
    [...model.batches.values()].some(({ isOpen }) => isOpen),
  )
  const summary = await summariseQueue(sql)
  agree(
    'the summary',
    summary.map((line) => [line.status, line.rows, line.items, line.bytes]),
    [
      ['pending', model.pending] as const,
      ['processing', requestsOf(inBatches('processing'))] as const,
      ['failed', requestsOf(failed)] as const,
      ['dead', dead] as const,
    ].map(([status, requests]) => [
      status,
      requests.length,
      requests.reduce((sum, { staged }) => sum + staged.items, 0),
      bytes(requests),
    ]),
  )
}

function agreeOnRows(what: string, batch: Batch | undefined, requests: readonly ModelRequest[]): void {
  agree(
    `requests ${what}`,
    (batch?.rows ?? []).map((one) => [one.requestId, one.id, one.payload.toString(), one.tenant, one.signal]),
    requests.map(({ name, id, staged }) => [
      name,
      id,
      staged.payload.toString(),
      staged.tenant,
      staged.signal,
    ]),
  )
}

function agreeOnHistory(batch: Batch, history: Partial<Batch>): void {
  const { isFirstHold, attempts, outages, takeovers, lastError } = batch
  agree('the history', { isFirstHold, attempts, outages, takeovers, lastError }, history)
  agree('rows said and held', batch.expectedRows, batch.rows.length)
}

function namesOf(requests: readonly ModelRequest[]): string {
  return requests.map(({ name }) => name).join(', ')
}
