import { setTimeout as wait } from 'node:timers/promises'
import { queueEmpty } from '../waiting.ts'
import { checkStore, type Scenario, type ScenarioContext, setStage } from './scenario.ts'

const refusedMs = 6_000
const silentMs = 4_000
const perSecond = 60
const arrivesWithinMs = 20_000

/** The store refuses connections for 6 s, then takes requests and says nothing for 4 s, while requests keep coming. */
export const outage: Scenario = {
  name: 'outage',
  async play(context: ScenarioContext): Promise<void> {
    const { report } = context
    const { stage, ledger, senderTo } = await setStage(context, 'outage', { itemsMax: 20 })
    const ingress = await stage.ingress()
    // Two attempts would not outlast the outage if it counted against anybody.
    const worker = await stage.worker({
      MAX_ATTEMPTS: '2',
      RETRY_BASE_MS: '200',
      RETRY_MAX_MS: '2000',
      CIRCUIT_RESET_SECONDS: '2',
      LEASE_SECONDS: '10',
    })
    const sender = senderTo(ingress)
    const load = sender.sendAtRate(perSecond, (refusedMs + silentMs) / 1000 + 3)
    await wait(1_500)
    report.progress(`the store is away for ${(refusedMs + silentMs) / 1000} s`)
    stage.proxy.set({ kind: 'refused' })
    await wait(refusedMs)
    stage.proxy.set({ kind: 'requests held' })
    await wait(silentMs)
    stage.proxy.set({ kind: 'open' })
    report.progress('the store is back')
    const answers = await load
    sender.close()
    const stayed = answers.filter(({ answer }) => answer.kind === 'answered')
    const taken = stayed.filter(({ promised }) => promised === 'stored').length
    report.check('a store outage of 10 s: no sender hears of it', {
      expected: `${stayed.length} of ${stayed.length} × 200`,
      seen: ledger.describe(),
      ok: taken === stayed.length && taken > perSecond * 10,
    })
    const drained = await queueEmpty(stage, arrivesWithinMs)
    report.check('a store outage of 10 s: everything arrives afterwards', {
      expected: `queue empty within ${arrivesWithinMs / 1000} s, no dead letters`,
      seen: `${drained ? 'empty' : 'not empty'}, ${await deadLetters()} dead letters`,
      ok: drained && (await deadLetters()) === 0,
    })
    await checkStore(context, stage, ledger, 'a store outage of 10 s: every 200 is stored once and equal')
    const reasons = new Set(
      worker.log.filter(({ event }) => event === 'batch_persist_failed').map(({ reason }) => reason),
    )
    report.check('a store outage of 10 s: it is in the log', {
      expected: 'batch_persist_failed, reason outage only',
      seen: `${worker.countEvents('batch_persist_failed')} × batch_persist_failed, reasons ${[...reasons].join(', ')}`,
      ok: reasons.size === 1 && reasons.has('outage'),
    })

    async function deadLetters(): Promise<number> {
      const [row] = await stage.sql<{ rows: number }[]>`SELECT count(*)::int AS rows FROM dead_letter`
      return row?.rows ?? -1
    }
  },
}

/** A worker that starts while the store is away, for the first time ever: the bucket is not there either. */
export const lateStore: Scenario = {
  name: 'late store',
  async play(context: ScenarioContext): Promise<void> {
    const { report } = context
    const { stage, ledger, senderTo } = await setStage(context, 'late-store', { itemsMax: 5 })
    stage.proxy.set({ kind: 'refused' })
    const [ingress] = await Promise.all([
      stage.ingress(),
      stage.worker({ RETRY_BASE_MS: '200', RETRY_MAX_MS: '1000', CIRCUIT_RESET_SECONDS: '1' }),
    ])
    const sender = senderTo(ingress)
    await sender.send(60, 8)
    sender.close()
    await wait(1_000)
    stage.proxy.set({ kind: 'open' })
    const drained = await queueEmpty(stage, arrivesWithinMs)
    report.check('a worker that started before the store was there makes the bucket and fills it', {
      expected: `queue empty within ${arrivesWithinMs / 1000} s of the store's coming`,
      seen: drained ? 'empty' : 'not empty',
      ok: drained,
    })
    await checkStore(context, stage, ledger, 'late store: every 200 is stored once and equal')
  },
}
