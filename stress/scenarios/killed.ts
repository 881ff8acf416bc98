import { setTimeout as wait } from 'node:timers/promises'
import type { Stage } from '../machine.ts'
import { clientOf } from '../store-reader.ts'
import { queueEmpty, until } from '../waiting.ts'
import { checkStore, type Scenario, type ScenarioContext, setStage } from './scenario.ts'

const leaseSeconds = 4
const takenOverWithinMs = 25_000
const backWithinMs = 2_000

/** Workers killed with -9 at the two worst moments: with an object half on its way, and with it put but not settled. */
export const killedWorker: Scenario = {
  name: 'killed worker',
  async play(context: ScenarioContext): Promise<void> {
    const { report } = context
    const { stage, ledger, senderTo } = await setStage(context, 'killed-worker', { itemsMax: 40 })
    const settings = { LEASE_SECONDS: String(leaseSeconds), RETRY_MAX_MS: '2000' }
    const ingress = await stage.ingress()
    const sender = senderTo(ingress)

    const first = await stage.worker(settings)
    await until(() => clientOf(stage.machine.minio).bucketExists(stage.bucket), 10_000)
    stage.proxy.set({ kind: 'answers held' })
    await sender.send(150, 16)
    report.progress('waiting until objects are in the bucket whose worker has not heard of it')
    const put = await until(async () => (await stage.store.list()).size > 0, 10_000)
    const between = { objects: (await stage.store.list()).size, rows: await catalogRows(stage) }
    await first.kill()

    stage.proxy.set({ kind: 'open' })
    const second = await stage.worker(settings)
    stage.proxy.set({ kind: 'requests held' })
    await sender.send(150, 16)
    const claimed = await until(() => hasBatchOf(stage, second.pid), 10_000)
    await wait(300)
    await second.kill()
    stage.proxy.set({ kind: 'open' })
    report.check('workers are killed with -9 between put and settle, and within a put', {
      expected: 'objects in the bucket and none in the catalog; then a batch in its hands',
      seen: `${between.objects} in the bucket, ${between.rows} in the catalog; then ${claimed ? 'a batch' : 'none'}`,
      ok: put && between.objects > 0 && between.rows === 0 && claimed,
    })

    report.progress(`another worker waits for the leases of ${leaseSeconds} s to run out`)
    const third = await stage.worker(settings)
    await sender.send(100, 16)
    sender.close()
    const drained = await queueEmpty(stage, takenOverWithinMs)
    const takeovers = (await third.metrics()).get('sluice_takeovers_total') ?? 0
    report.check('another worker takes the batches over', {
      expected: `queue empty within ${takenOverWithinMs / 1000} s, by take-overs`,
      seen: `${drained ? 'empty' : 'not empty'}, ${takeovers} take-overs`,
      ok: drained && takeovers > 0,
    })
    await checkStore(
      context,
      stage,
      ledger,
      'killed workers: nothing lost, nothing twice, bucket and catalog agree',
    )
  },
}

/** An ingress and then PostgreSQL itself killed with -9 under load. */
export const killedUnderLoad: Scenario = {
  name: 'killed under load',
  async play(context: ScenarioContext): Promise<void> {
    const { report, machine } = context
    const { stage, ledger, senderTo } = await setStage(context, 'killed-load', {
      itemsMax: 20,
      hangUps: false,
    })
    const [first, second] = await Promise.all([stage.ingress(), stage.ingress()])
    await stage.worker({ LEASE_SECONDS: '5', RETRY_MAX_MS: '2000' })

    const dying = senderTo(first)
    const surviving = senderTo(second)
    const killing = wait(700).then(() => first.process.kill())
    await Promise.all([dying.send(100_000, 16, AbortSignal.timeout(1_000)), surviving.send(200, 8), killing])
    dying.close()
    const lost = ledger.count('unknown')
    report.check('an ingress is killed with -9 under load', {
      expected: 'some 200s before, no answer after',
      seen: `${ledger.describe()}`,
      ok: ledger.count('stored') > 0 && lost > 0,
    })

    report.progress('killing PostgreSQL under load and starting it again')
    const load = surviving.sendAtRate(150, 5)
    await wait(1_500)
    await machine.postgres.crash()
    await wait(1_000)
    await machine.postgres.restart()
    const backMs = performance.now()
    const back = await until(async () => (await surviving.send(1, 1))[0]?.promised === 'stored', backWithinMs)
    const tookSeconds = (performance.now() - backMs) / 1000
    const answers = await load
    const slowest = Math.max(...answers.map(({ answer }) => answer.tookMs)) / 1000
    const [after, good] = await surviving
      .send(50, 8)
      .then((entries) => [entries.length, entries.filter(({ promised }) => promised === 'stored').length])
    const statuses = new Set(
      answers.map(({ answer }) => (answer.kind === 'answered' ? answer.status : 'none')),
    )
    report.check('PostgreSQL is killed with -9 under load and comes back', {
      expected: `503 within 8 s while it is away, 200 within ${backWithinMs / 1000} s of its return, without a restart of ours`,
      seen: `statuses ${[...statuses].sort().join(', ')}, slowest ${slowest.toFixed(1)} s; ${back ? '200' : 'none'} after ${tookSeconds.toFixed(2)} s, then ${good} of ${after} × 200`,
      ok: slowest < 8 && statuses.has(503) && !statuses.has('none') && back && good === after,
    })
    surviving.close()
    await checkStore(
      context,
      stage,
      ledger,
      'killed under load: every 200 is stored once, every other request at most once',
    )
  },
}

async function catalogRows(stage: Stage): Promise<number> {
  const [row] = await stage.sql<{ rows: number }[]>`SELECT count(*)::int AS rows FROM stored_object`
  return row?.rows ?? 0
}

/** A worker's name holds its process id; where it does not, any batch that is being worked on counts. */
async function hasBatchOf(stage: Stage, pid: number): Promise<boolean> {
  const owners = await stage.sql<{ lease_owner: string }[]>`
    SELECT lease_owner FROM ingestion_batch WHERE status = 'processing' AND lease_until > clock_timestamp()`
  return owners.some(({ lease_owner }) => lease_owner.includes(String(pid)))
}
