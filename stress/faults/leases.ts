import { setTimeout as wait } from 'node:timers/promises'
import { bucketKeys } from '../read-back.ts'
import { until } from '../waiting.ts'
import { expect, type Fault } from './fault.ts'
import { LEASE_SECONDS, type Scene } from './scene.ts'

const takenOverWithinMs = (LEASE_SECONDS + 15) * 1000

/** Batches under a lease of this process. */
async function batchesOf({ stage }: Scene, pid: number): Promise<string[]> {
  const rows = await stage.sql<{ batch_id: string }[]>`
    SELECT batch_id FROM ingestion_batch WHERE status = 'processing' AND lease_owner LIKE ${`%:${pid}`}`
  return rows.map((row) => row.batch_id)
}

/** Waits until the process has a batch whose put reached the store and whose answer it did not get. */
async function holdsUnansweredPut(scene: Scene, pid: number): Promise<string[]> {
  scene.stage.proxy.set({ kind: 'answers held' })
  let held: string[] = []
  const holds = await until(async () => {
    held = await batchesOf(scene, pid)
    const keys = [...(await bucketKeys(scene.stage))]
    return held.some((id) => keys.some((key) => key.includes(id)))
  }, 15_000)
  expect(holds, 'no worker had an object in the store without an answer')
  return held
}

/** Whether none of these batches is under a lease of this process any more. */
function left(scene: Scene, pid: number, batches: readonly string[]): Promise<boolean> {
  return until(async () => {
    const held = await batchesOf(scene, pid)
    return batches.every((batch) => !held.includes(batch))
  }, takenOverWithinMs)
}

async function takeovers(scene: Scene): Promise<number> {
  const metrics = await Promise.all(scene.workers.map((worker) => worker.metrics()))
  return metrics.reduce((sum, values) => sum + (values.get('sluice_takeovers_total') ?? 0), 0)
}

const frozenWorker: Fault = {
  name: 'a worker frozen within a put, past its lease, and woken',
  async bring({ scene }) {
    const worker = scene.process('worker', 0)
    const held = await holdsUnansweredPut(scene, worker.pid)
    process.kill(worker.pid, 'SIGSTOP')
    try {
      scene.stage.proxy.set({ kind: 'open' })
      expect(await left(scene, worker.pid, held), 'the batches of the frozen worker were not taken over')
      await wait(2 * LEASE_SECONDS * 1000)
    } finally {
      process.kill(worker.pid, 'SIGCONT')
    }
    const before = scene.stored
    expect(await scene.moreStored(60, 15_000), `nothing was taken after the worker woke; ${before} before`)
    const lost = () => worker.countEvents('batch_lost') + worker.countEvents('batch_settled_before')
    expect(await until(() => lost() > 0, 10_000), 'the woken worker did not say that it lost its batches')
    return `${held.length} batches taken over; the woken worker let go of ${lost()}`
  },
}

const takenOverTogether: Fault = {
  name: 'two workers take over at the same instant',
  async bring({ scene }) {
    const [first, second] = [scene.process('worker', 0), scene.process('worker', 1)]
    await holdsUnansweredPut(scene, first.pid)
    await until(async () => (await batchesOf(scene, second.pid)).length > 0, 10_000)
    const held = [...(await batchesOf(scene, first.pid)), ...(await batchesOf(scene, second.pid))]
    await Promise.all([scene.kill('worker', 0), scene.kill('worker', 1)])
    scene.stage.proxy.set({ kind: 'open' })
    await Promise.all([scene.start('worker', 0), scene.start('worker', 1)])
    const all = await until(async () => (await takeovers(scene)) >= held.length, takenOverWithinMs)
    expect(all, `${await takeovers(scene)} take-overs of ${held.length} batches`)
    return `${held.length} batches of two dead workers, ${await takeovers(scene)} take-overs`
  },
}

const stoppedWithinPut: Fault = {
  name: 'a batch given back while its put has no answer',
  settings: { SHUTDOWN_GRACE_SECONDS: '1' },
  async bring({ scene }) {
    const worker = scene.process('worker', 0)
    const held = await holdsUnansweredPut(scene, worker.pid)
    const code = await worker.terminate()
    scene.stage.proxy.set({ kind: 'open' })
    const givenBack = worker.log.filter((line) => line.event === 'batch_lost' && line.given_back === true)
    expect(givenBack.length > 0, `the worker gave no batch back; it ended with ${code}`)
    await scene.start('worker', 0)
    expect(await scene.moreStored(60, 15_000), 'nothing was taken afterwards')
    return `${held.length} in hand, ${givenBack.length} given back within a grace of 1 s`
  },
}

export const leaseFaults: readonly Fault[] = [frozenWorker, takenOverTogether, stoppedWithinPut]
