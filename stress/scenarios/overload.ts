import { setTimeout as wait } from 'node:timers/promises'
import { account, describeAccount, expectedAccount, isExact } from '../account.ts'
import type { LoadResult } from '../load.ts'
import type { Ingress } from '../machine.ts'
import { MarkedLoad } from '../open-loop.ts'
import { renderTable } from '../report.ts'
import { queueEmpty, until } from '../waiting.ts'
import type { Scenario, ScenarioContext } from './scenario.ts'

const priorities = ['low', 'normal', 'high'] as const
const refusedShares = [0.8, 0.3, 0.1] as const
const calmPerSecond = 30
const calmSeconds = 4
/**
 * More JSON than one thread can take, by several times: on two cores a storm of protobuf can leave that thread time, for
 * what stores it takes the cores away. What does not find a free connection is not sent.
 */
const stormPerSecond = 6_000
const stormSeconds = 30
/** Shedding ends 30 s after the last reading over its threshold, and the readings are smoothed. */
const recoverySeconds = 50
const sliceSeconds = 2
const drainWithinMs = 60_000

/** Calm, a storm of requests of all priorities, and calm again, before an ingress that sheds load. */
export const overload: Scenario = {
  name: 'overload',
  async play(context: ScenarioContext): Promise<void> {
    const { machine, report, seed } = context
    const stage = await machine.stage('overload')
    const ingress = await stage.ingress({ ENABLE_LOAD_SHEDDING: 'true' })
    await stage.worker({ BATCH_MAX_SIZE: '200', PROCESSING_QUEUE_MAX_DEPTH: '1000' })
    const load = new MarkedLoad(seed, ingress.url, 'json')
    const watch = new Watch(ingress)
    const rows: string[][] = []
    const phase = async (name: string, perSecond: number, seconds: number): Promise<LoadResult> => {
      report.progress(`${name}: ${perSecond} requests a second for ${seconds} s`)
      const running = load.run(perSecond, seconds, { priorities, lateSeconds: 0 })
      const seen = await watch.during(running)
      const result = await running
      rows.push(...slices(name, result, seen))
      return result
    }
    await phase('calm', calmPerSecond, calmSeconds)
    const storm = await phase('storm', stormPerSecond, stormSeconds)
    await phase('calm', calmPerSecond, recoverySeconds)
    await until(async () => (await watch.look()).intensity === 0, 20_000)
    const header = ['', 's', 'taken/s', 'low', 'normal', 'high', 'p50', 'p99', 'CPU', 'shedding']
    const unit = ['', '', '', 'refused', 'refused', 'refused', 'ms', 'ms', '', '']
    for (const line of renderTable([header, unit, ...rows], Array(10).fill(10)).split('\n')) {
      report.progress(line)
    }

    const shares = refusedOf(storm)
    report.check('overload: a storm is refused by priority, in the shares that are promised', {
      expected:
        '0.8 low, 0.3 normal, 0.1 high from the first refusal on, times one intensity of about 1 (4 sigma)',
      seen: shares.seen,
      ok: shares.ok,
    })
    const metrics = await ingress.process.metrics()
    await queueEmpty(stage, drainWithinMs)
    await stage.terminate()
    const count = (event: string) => ingress.process.countEvents(event)
    report.check('overload: one stretch of shedding, which ends once when the storm is over', {
      expected: 'began once, ended once',
      seen: `began ${count('load_shedding_began')} times, ended ${count('load_shedding_ended')} times`,
      ok: count('load_shedding_began') === 1 && count('load_shedding_ended') === 1,
    })
    const refused = load.ledger.countStatus(503)
    const counted = metrics.get('sluice_shed_requests_total') ?? 0
    report.check('overload: every 503 is counted and logged with its reason', {
      expected: `${refused} in sluice_shed_requests_total and as load_shedding`,
      seen: `${counted} and ${count('load_shedding')}`,
      ok: refused > 0 && counted === refused && count('load_shedding') === refused,
    })
    const result = await account(stage, load.ledger, { decodeEvery: 50 })
    report.check('overload: every 200 is stored, nothing that was refused is', {
      expected: `${expectedAccount(load.ledger)}, 0 × 503 stored`,
      seen: `${describeAccount(result)}, ${result.storedUnknown} × 503 stored`,
      ok: isExact(result) && result.storedUnknown === 0,
    })
  },
}

/** A queue that is full, before an ingress that sheds load: what it does not shed meets the overflow policy. */
export const overloadedQueue: Scenario = {
  name: 'overloaded queue',
  async play(context: ScenarioContext): Promise<void> {
    const { machine, report, seed } = context
    const limit = 40
    const stage = await machine.stage('overloaded-queue')
    const ingress = await stage.ingress({
      ENABLE_LOAD_SHEDDING: 'true',
      LOAD_SHEDDING_CPU_PERCENT: '100',
      STAGING_MAX_BACKLOG: String(limit),
    })
    const load = new MarkedLoad(seed, ingress.url)
    report.progress(`filling a queue of ${limit}, with no worker there, and sending on`)
    await load.run(100, 2, { lateSeconds: 5 })
    const isShedding = async () => (await ingress.process.metrics()).get('sluice_load_shedding_ratio') === 1
    await until(isShedding, 5_000)
    const sent = await load.run(200, 6, { priorities, lateSeconds: 0 })
    const shares = refusedOf(sent)
    const full = sent.statuses.filter((status) => status === 429).length
    const others = sent.statuses.filter((status) => ![200, 429, 503].includes(status)).length
    const taken = load.ledger.countStatus(200)
    report.check('overload: a full queue is shed by priority with 503, and the rest is told 429', {
      expected: `0.8 low, 0.3 normal, 0.1 high × 503 (4 sigma), then 429; in all at most ${limit} × 200`,
      seen: `${shares.seen}, ${full} × 429, ${others} others; ${taken} × 200`,
      ok: shares.ok && full > 0 && others === 0 && taken > 0 && taken <= limit,
    })
    await stage.worker()
    await queueEmpty(stage, drainWithinMs)
    await stage.terminate()
    const shed = ingress.process.countEvents('load_shedding', 'backlog')
    const refused = load.ledger.countStatus(503)
    const result = await account(stage, load.ledger)
    report.check('overload: a full queue is the reason that is logged, and what was refused is not stored', {
      expected: `${refused} × load_shedding/backlog, 0 × 503 stored, ${expectedAccount(load.ledger)}`,
      seen: `${shed}, ${result.storedUnknown}, ${describeAccount(result)}`,
      ok: shed === refused && result.storedUnknown === 0 && isExact(result),
    })
  },
}

/** What an ingress says of its load at a moment. */
interface Reading {
  readonly cpu: number
  readonly intensity: number
}

/** Asks an ingress once a slice. */
class Watch {
  readonly #ingress: Ingress

  constructor(ingress: Ingress) {
    this.#ingress = ingress
  }

  async look(): Promise<Reading> {
    const metrics = await this.#ingress.process.metrics()
    return {
      cpu: 0.8 * (metrics.get('sluice_load_ratio{reason="cpu"}') ?? 0),
      intensity: metrics.get('sluice_load_shedding_ratio') ?? 0,
    }
  }

  async during(running: Promise<unknown>): Promise<Reading[]> {
    const over = new AbortController()
    const end = () => over.abort()
    running.then(end, end)
    const seen: Reading[] = []
    while (!over.signal.aborted) {
      await wait(sliceSeconds * 1000, undefined, { signal: over.signal }).catch(() => undefined)
      seen.push(await this.look())
    }
    return seen
  }
}

/**
 * Whether, from the first refusal on, the refused of each priority are their share of what was sent, times one intensity
 * for all of them. It is 1 under overload; a reading that falls below its threshold meanwhile makes it less.
 */
function refusedOf({ statuses }: LoadResult): { seen: string; ok: boolean } {
  const first = statuses.indexOf(503)
  const sent = [0, 0, 0]
  const refused = [0, 0, 0]
  for (const [number, status] of statuses.entries()) {
    if (number < first || first === -1) continue
    const priority = number % priorities.length
    sent[priority] = (sent[priority] ?? 0) + 1
    if (status === 503) refused[priority] = (refused[priority] ?? 0) + 1
  }
  const sum = (numbers: readonly number[]) => numbers.reduce((total, one) => total + one, 0)
  const intensity = sum(refused) / sum(refusedShares.map((share, priority) => share * (sent[priority] ?? 0)))
  const fits = refusedShares.map((share, priority) => {
    const [count, expected] = [sent[priority] ?? 0, share * intensity]
    const sigma = Math.sqrt(count * expected * Math.max(0, 1 - expected))
    return count > 0 && Math.abs((refused[priority] ?? 0) - count * expected) <= 4 * sigma
  })
  const of = priorities.map((name, priority) => `${name} ${refused[priority]} of ${sent[priority]}`)
  return {
    seen: `${of.join(', ')}: intensity ${intensity.toFixed(2)}`,
    ok: fits.every(Boolean) && intensity > 0.7 && intensity < 1.1,
  }
}

/** A row for every two seconds: what was taken and refused, and how long the answers took from their sending. */
function slices(
  name: string,
  { statuses, sentMs, tookMs, seconds }: LoadResult,
  seen: readonly Reading[],
): string[][] {
  const rows: string[][] = []
  for (let slice = 0; slice < Math.floor(seconds / sliceSeconds); slice++) {
    const taken: number[] = []
    const refused = [0, 0, 0]
    for (const [number, status] of statuses.entries()) {
      if (Math.floor((sentMs[number] ?? 0) / 1000 / sliceSeconds) !== slice) continue
      const priority = number % priorities.length
      if (status === 200) taken.push(tookMs[number] ?? 0)
      if (status === 503) refused[priority] = (refused[priority] ?? 0) + 1
    }
    taken.sort((a, b) => a - b)
    const quantile = (share: number) => (taken[Math.floor(share * (taken.length - 1))] ?? 0).toFixed(0)
    const reading = seen[slice]
    rows.push([
      slice === 0 ? name : '',
      String(slice * sliceSeconds),
      (taken.length / sliceSeconds).toFixed(0),
      ...refused.map((count) => (count / sliceSeconds).toFixed(0)),
      quantile(0.5),
      quantile(0.99),
      `${(100 * (reading?.cpu ?? 0)).toFixed(0)} %`,
      (reading?.intensity ?? 0).toFixed(2),
    ])
  }
  return rows
}
