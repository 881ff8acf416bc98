import { setTimeout as wait } from 'node:timers/promises'
import type { Stage } from '../machine.ts'
import type { SluiceProcess } from '../sluice-process.ts'
import { queueEmpty, until } from '../waiting.ts'
import { checkStore, type Scenario, type ScenarioContext, setStage } from './scenario.ts'

const depthMax = 50
const batchMax = 10
const delayMs = 700
const slowMs = 5_000
const requests = 500

/** A store that takes its time: the buffer fills, polling sleeps, and wakes when the store is quick again. */
export const slowStore: Scenario = {
  name: 'slow store',
  async play(context: ScenarioContext): Promise<void> {
    const { report } = context
    const { stage, ledger, senderTo } = await setStage(context, 'slow-store', { itemsMax: 10 })
    const ingress = await stage.ingress()
    const worker = await stage.worker({
      PROCESSING_QUEUE_MAX_DEPTH: String(depthMax),
      BATCH_MAX_SIZE: String(batchMax),
    })
    stage.proxy.set({ kind: 'slow', delayMs })
    const watch = new Watch(stage, worker)
    watch.start()
    const sender = senderTo(ingress)
    report.progress(`${requests} requests while each put waits ${delayMs} ms`)
    await sender.sendPrepared(sender.prepare(requests), 16)
    sender.close()
    const pausedSeen = await until(() => watch.paused, slowMs)
    await wait(slowMs / 2)
    stage.proxy.set({ kind: 'open' })
    report.progress('the store is quick again')
    const drained = await queueEmpty(stage, 20_000)
    const resumed = await until(
      async () => (await worker.metrics()).get('sluice_processing_paused') === 0,
      2_000,
    )
    await watch.stop()
    report.check('polling pauses while the buffer is full and resumes', {
      expected: 'sluice_processing_paused 1, then 0 with the queue empty',
      seen: `${pausedSeen ? 1 : 'never 1'}, then ${resumed ? 0 : 1}, queue ${drained ? '' : 'not '}empty`,
      ok: pausedSeen && resumed && drained,
    })
    report.check('claimed rows stay within PROCESSING_QUEUE_MAX_DEPTH', {
      expected: `more than ${depthMax / 2}, at most ${depthMax}, in the database and in sluice_buffer_rows`,
      seen: `at most ${watch.claimedMax} and ${watch.bufferedMax} (${watch.looks} looks)`,
      ok: watch.claimedMax <= depthMax && watch.bufferedMax <= depthMax && watch.claimedMax > depthMax / 2,
    })
    await checkStore(context, stage, ledger, 'slow store: every 200 is stored once and equal')
    const paused = worker.countEvents('processing_paused', 'buffer_full')
    report.check('slow store: the pause is in the log', {
      expected: 'processing_paused/buffer_full, nothing failed',
      seen: `${paused} × processing_paused, ${worker.countEvents('batch_persist_failed')} × batch_persist_failed`,
      ok: paused > 0 && worker.countEvents('batch_persist_failed') === 0,
    })
  },
}

/** Looks at claimed rows and gauges as often as it can, and keeps the largest. */
class Watch {
  claimedMax = 0
  bufferedMax = 0
  looks = 0
  paused = false
  readonly #stage: Stage
  readonly #worker: SluiceProcess
  #running: Promise<void> | undefined
  #stopping = false

  constructor(stage: Stage, worker: SluiceProcess) {
    this.#stage = stage
    this.#worker = worker
  }

  start(): void {
    this.#running = this.#look()
  }

  async stop(): Promise<void> {
    this.#stopping = true
    await this.#running
  }

  async #look(): Promise<void> {
    while (!this.#stopping) {
      const [[claimed], metrics] = await Promise.all([
        this.#stage.sql<{ rows: number }[]>`
          SELECT count(*)::int AS rows FROM ingestion_queue WHERE batch_id IS NOT NULL`,
        this.#worker.metrics(),
      ])
      this.looks++
      this.claimedMax = Math.max(this.claimedMax, claimed?.rows ?? 0)
      this.bufferedMax = Math.max(this.bufferedMax, metrics.get('sluice_buffer_rows') ?? 0)
      if (metrics.get('sluice_processing_paused') === 1) this.paused = true
      await wait(20)
    }
  }
}
