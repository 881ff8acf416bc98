import { setTimeout as wait } from 'node:timers/promises'
import { until } from '../waiting.ts'
import { expect, type Fault } from './fault.ts'
import type { LateRequests } from './proxy.ts'
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
    const keys = [...(await scene.stage.store.list())]
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

const puts = /^PUT \/[^/]+\/(\S+)/
const keyOf = (request: string) => decodeURIComponent(puts.exec(request)?.[1] ?? '')

/** How many of these keys the catalog names. */
async function catalogued({ stage }: Scene, keys: readonly string[]): Promise<number> {
  const [row] = await stage.sql<{ rows: number }[]>`
    SELECT count(*)::int AS rows FROM stored_object WHERE key = ANY (${[...keys]})`
  return row?.rows ?? -1
}

/** Holds puts up until this process has a batch among them. Answers them. */
async function holdPutsOf(scene: Scene, pid: number): Promise<LateRequests> {
  const late = scene.stage.proxy.delayRequests((request) => puts.test(request))
  const has = await until(async () => {
    const batches = await batchesOf(scene, pid)
    return batches.some((batch) => late.names.some((name) => name.includes(batch)))
  }, 15_000)
  late.stop()
  expect(has, 'no put of the worker was on its way')
  return late
}

const latePut: Fault = {
  name: 'a batch given back while its put is on the way, which arrives last',
  settings: { SHUTDOWN_GRACE_SECONDS: '1' },
  async bring({ scene }) {
    const worker = scene.process('worker', 0)
    const late = await holdPutsOf(scene, worker.pid)
    const keys = late.names.map(keyOf)
    const code = await worker.terminate()
    const givenBack = worker.log.filter((line) => line.event === 'batch_lost' && line.given_back === true)
    expect(givenBack.length > 0, `the worker gave no batch back; it ended with ${code}`)
    const settled = await until(
      async () => (await catalogued(scene, keys)) === keys.length,
      takenOverWithinMs,
    )
    expect(settled, `${await catalogued(scene, keys)} of ${keys.length} were stored by another`)
    const answers = await late.deliver()
    // The store has the object and refuses a second one (If-None-Match).
    const refused = answers.filter((answer) => answer.endsWith(' 412')).length
    expect(refused === answers.length, `late puts were answered ${answers.join(', ')}`)
    await scene.start('worker', 0)
    expect(await scene.moreStored(60, 15_000), 'nothing was taken afterwards')
    return `${keys.length} puts arrived after another worker had settled their batches: ${refused} × 412`
  },
}

const tooLarge =
  '<?xml version="1.0"?><Error><Code>EntityTooLarge</Code><Message>It is too large</Message></Error>'
const tooLargeAnswer = Buffer.from(
  'HTTP/1.1 400 Bad Request\r\nContent-Type: application/xml\r\nConnection: close\r\n' +
    `Content-Length: ${tooLarge.length}\r\n\r\n${tooLarge}`,
)

/** The put of a batch that is split meanwhile writes an object that no catalog row will ever name. */
const latePutOfSplitBatch: Fault = {
  name: 'a batch split while its put is on the way, which arrives last',
  // Nothing is buried while the store refuses everything for a moment.
  settings: { MAX_ATTEMPTS: '1000' },
  async bring({ scene }) {
    const { stage } = scene
    const late = await holdPutsOf(scene, scene.process('worker', 0).pid)
    const keys = late.names.map(keyOf)
    const abandoned = async () => {
      const rows = await stage.sql<{ key: string }[]>`
        SELECT key FROM abandoned_batch, unnest(keys) AS key WHERE key = ANY (${keys})`
      return rows.map(({ key }) => key)
    }
    stage.proxy.set({ kind: 'answered', bytes: tooLargeAnswer })
    const split = await until(async () => (await abandoned()).length > 0, 15_000)
    stage.proxy.set({ kind: 'open' })
    expect(split, `none of ${keys.length} batches was split`)
    const answers = await late.deliver()
    const leftOver = await abandoned()
    const arrived = answers.filter((answer) => answer.endsWith(' 200')).map(keyOf)
    const written = arrived.filter((key) => leftOver.includes(key))
    expect(written.length > 0, `no put of a split batch was written: ${answers.join(', ')}`)
    const sweptOf = (key: string) =>
      scene.workers.some(({ log }) => log.some((line) => line.event === 'object_swept' && line.key === key))
    expect(await until(() => written.every(sweptOf), 5 * LEASE_SECONDS * 1000), 'not all of them were swept')
    return `${written.length} of ${keys.length} late puts were written after their batches had been split, and swept`
  },
}

export const leaseFaults: readonly Fault[] = [
  frozenWorker,
  takenOverTogether,
  stoppedWithinPut,
  latePut,
  latePutOfSplitBatch,
]
