import { setTimeout as wait } from 'node:timers/promises'
import type { LedgerEntry } from '../ledger.ts'
import type { Ingress } from '../machine.ts'
import { rejectedItems, statusMessage } from '../otlp-messages.ts'
import { queuedRows, queueEmpty, until } from '../waiting.ts'
import { checkStore, retryAfters, type Scenario, type ScenarioContext, setStage } from './scenario.ts'

/** Longer than two of the counts by which an ingress learns what others staged. */
const countedMs = 500
/** How long an ingress may go on refusing after the queue is empty. */
const roomWithinMs = 3_000
const itemsMax = 5

/** Two ingresses on one database, no worker, a small limit. */
export const reject: Scenario = {
  name: 'reject',
  async play(context: ScenarioContext): Promise<void> {
    const { report } = context
    const limit = 60
    const [filled, atOnce] = [40, 32]
    const settings = { STAGING_MAX_BACKLOG: String(limit), OVERFLOW_POLICY: 'reject' }
    const { stage, ledger, senderTo } = await setStage(context, 'reject', { itemsMax })
    const ingresses = await Promise.all([stage.ingress(settings), stage.ingress(settings)])
    const sender = senderTo(...ingresses)
    await sender.sendPrepared(sender.prepare(filled), 1)
    await wait(countedMs)
    const flood = sender.prepare(600)
    report.progress('flooding two ingresses whose queue is nearly full, with no worker there')
    await sender.sendPrepared(flood, atOnce)

    const [staged, taken] = [await queuedRows(stage), ledger.countStatus(200)]
    const bound = limit + (ingresses.length - 1) * (limit - filled) + atOnce
    report.check('reject: the limit holds with two ingresses on one database', {
      expected: `${limit} to ${bound} rows (limit + (processes − 1) × headroom read + in flight), one for each 200`,
      seen: `${staged} rows, ${taken} × 200`,
      ok: staged === taken && staged >= limit && staged <= bound,
    })
    const refused = ledger.withStatus(429)
    const told = retryAfters(refused)
    const wordless = refused.filter(({ answer }) => !saysWhy(answer)).length
    report.check('reject: everything else is 429, with a wait and a Status in the format of the request', {
      expected: `${ledger.entries.size - taken} × 429, Retry-After 1 to 5, none without a Status`,
      seen: `${refused.length} × 429, ${told.seen}, ${wordless} without`,
      ok: refused.length === ledger.entries.size - taken && told.ok && wordless === 0 && refused.length > 0,
    })
    report.progress('starting a worker')
    await stage.worker()
    await queueEmpty(stage, 15_000)
    const emptyMs = performance.now()
    let again: LedgerEntry | undefined
    await until(async () => {
      again = (await sender.sendPrepared(sender.prepare(1), 1))[0]
      return again?.promised === 'stored'
    }, roomWithinMs)
    const tookMs = performance.now() - emptyMs
    report.check('reject: requests are taken again once a worker made room', {
      expected: `200 within ${roomWithinMs / 1000} s of the empty queue`,
      seen: again?.promised === 'stored' ? `200 after ${(tookMs / 1000).toFixed(2)} s` : ledger.describe(),
      ok: again?.promised === 'stored',
    })
    const refusals = ledger.countStatus(429)
    const metric = await sumOfMetrics(ingresses, 'sluice_queue_saturated_total')
    sender.close()
    await checkStore(context, stage, ledger, 'reject: every 200 is stored, no 429 is')
    const logged = ingresses.reduce(
      (total, { process }) => total + process.countEvents('queue_saturated', 'queue_full_reject'),
      0,
    )
    report.check('reject: metric and log events count the 429s', {
      expected: `${refusals} in sluice_queue_saturated_total and as queue_saturated/queue_full_reject`,
      seen: `${metric} and ${logged}`,
      ok: metric === refusals && logged === refusals,
    })
  },
}

/** One ingress, no worker: what does not fit is dropped, and its sender is told. */
export const drop: Scenario = {
  name: 'drop',
  async play(context: ScenarioContext): Promise<void> {
    const { report } = context
    const limit = 40
    const settings = { STAGING_MAX_BACKLOG: String(limit), OVERFLOW_POLICY: 'drop' }
    const { stage, ledger, senderTo } = await setStage(context, 'drop', { itemsMax })
    const ingress = await stage.ingress(settings)
    const sender = senderTo(ingress)
    await sender.sendPrepared(sender.prepare(400), 16)
    sender.close()
    const [staged, taken, dropped] = [
      await queuedRows(stage),
      ledger.countStatus(200),
      ledger.withStatus(202),
    ]
    const mistold = dropped.filter((entry) => itemsTold(entry) !== entry.items).length
    report.check('drop: 202 with a partial success that names the count', {
      expected: `at most ${limit} × 200 with a row each, all others 202, none with another count than its items`,
      seen: `${ledger.describe()}, ${staged} rows, ${mistold} with another count`,
      ok:
        staged === taken &&
        taken <= limit &&
        taken > limit / 2 &&
        taken + dropped.length === ledger.entries.size &&
        mistold === 0,
    })
    await checkCounters(context, ingress, dropped, () => stage.worker())
    await checkStore(context, stage, ledger, 'drop: every 200 is stored, no 202 is')
    checkShedding(context, ingress, dropped, 'drop')
  },
}

/** One ingress, no worker: between the limit and twice the limit a share is kept, nothing beyond. */
export const sample: Scenario = {
  name: 'sample',
  async play(context: ScenarioContext): Promise<void> {
    const { report } = context
    const [limit, share, drawn, atOnce] = [400, 0.3, 1_000, 16]
    const settings = {
      STAGING_MAX_BACKLOG: String(limit),
      OVERFLOW_POLICY: 'sample',
      OVERFLOW_SAMPLE_RATE: String(share),
    }
    const { stage, ledger, senderTo } = await setStage(context, 'sample', { itemsMax: 2 })
    const ingress = await stage.ingress(settings)
    const sender = senderTo(ingress)
    report.progress(`sending ${limit + 2 * drawn} small requests to a queue of ${limit}`)
    await sender.sendPrepared(sender.prepare(limit), atOnce)
    const before = ledger.countStatus(200)
    const draw = await sender.sendPrepared(sender.prepare(drawn), atOnce)
    const kept = draw.filter(({ promised }) => promised === 'stored').length
    const sigma = Math.sqrt(drawn * share * (1 - share))
    const [low, high] = [Math.ceil(drawn * share - 4 * sigma), Math.floor(drawn * share + 4 * sigma)]
    report.check('sample: the share that is kept is the one asked for', {
      expected: `${limit - atOnce} to ${limit} × 200 (what is on its way may count twice), then ${low} to ${high} of ${drawn} (${share}, 4 sigma), 202 for the rest`,
      seen: `${before} × 200, then ${kept}`,
      ok:
        before >= limit - atOnce &&
        before <= limit &&
        kept >= low &&
        kept <= high &&
        draw.every(({ answer }) => answer.kind === 'answered' && [200, 202].includes(answer.status)),
    })
    await sender.sendPrepared(sender.prepare(drawn), atOnce)
    sender.close()
    const [staged, taken, dropped] = [
      await queuedRows(stage),
      ledger.countStatus(200),
      ledger.withStatus(202),
    ]
    const mistold = dropped.filter((entry) => itemsTold(entry) !== entry.items).length
    report.check('sample: nothing is kept beyond twice the limit', {
      expected: `at most ${2 * limit} rows, one for each 200; 0 × 202 with another count than its items`,
      seen: `${staged} rows, ${taken} × 200; ${mistold} × 202`,
      ok: staged === taken && staged <= 2 * limit && staged > 1.5 * limit && mistold === 0,
    })
    await checkCounters(context, ingress, dropped, () => stage.worker())
    await checkStore(context, stage, ledger, 'sample: every 200 is stored, no 202 is')
    checkShedding(context, ingress, dropped, 'sample')
  },
}

/** The counters of an ingress against what it answered; then lets the worker come. */
async function checkCounters(
  { report }: ScenarioContext,
  ingress: Ingress,
  dropped: readonly LedgerEntry[],
  startWorker: () => Promise<unknown>,
): Promise<void> {
  const metrics = await ingress.process.metrics()
  const items = dropped.reduce((total, entry) => total + entry.items, 0)
  const counted = {
    requests: metrics.get('sluice_dropped_requests_total') ?? 0,
    items: metrics.get('sluice_dropped_items_total') ?? 0,
  }
  report.check(`${ingress.process.name.split(' ')[0]}: the counters say what was dropped`, {
    expected: `${dropped.length} requests, ${items} items`,
    seen: `${counted.requests} requests, ${counted.items} items`,
    ok: counted.requests === dropped.length && counted.items === items,
  })
  await startWorker()
}

function checkShedding(
  { report }: ScenarioContext,
  { process }: Ingress,
  dropped: readonly LedgerEntry[],
  policy: string,
): void {
  const logged = process.countEvents('load_shedding', 'queue_full_drop_or_sample')
  report.check(`${policy}: the log events count the 202s`, {
    expected: `${dropped.length} as load_shedding/queue_full_drop_or_sample`,
    seen: String(logged),
    ok: logged === dropped.length,
  })
}

function itemsTold({ answer, signal }: LedgerEntry): number | undefined {
  if (answer.kind !== 'answered') return undefined
  try {
    return rejectedItems(signal, formatOf(answer.contentType), answer.body)
  } catch {
    // An answer that cannot be decoded told nothing.
    return undefined
  }
}

function saysWhy(answer: LedgerEntry['answer']): boolean {
  return answer.kind === 'answered' && statusMessage(formatOf(answer.contentType), answer.body) !== undefined
}

function formatOf(contentType: string | undefined): 'protobuf' | 'json' {
  return contentType?.startsWith('application/json') === true ? 'json' : 'protobuf'
}

async function sumOfMetrics(ingresses: readonly Ingress[], name: string): Promise<number> {
  const all = await Promise.all(ingresses.map(({ process }) => process.metrics()))
  return all.reduce((total, metrics) => total + (metrics.get(name) ?? 0), 0)
}
