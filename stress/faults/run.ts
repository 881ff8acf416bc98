import { setTimeout as wait } from 'node:timers/promises'
import type { Machine } from '../machine.ts'
import { seededRandom } from '../seeded-random.ts'
import { queueEmpty, until } from '../waiting.ts'
import type { Fault } from './fault.ts'
import { type Reconciliation, reconcile } from './reconcile.ts'
import { LEASE_SECONDS, Scene } from './scene.ts'

const drainWithinMs = 60_000
const sweptWithinMs = 30_000
/** How long the load goes on before a fault and after it. */
const loadMs = 700

/** One line of the table. */
export interface FaultResult {
  readonly name: string
  readonly ok: boolean
  /** What the fault saw, or what was wrong. */
  readonly seen: string
  readonly kills: number
  readonly seconds: number
  readonly reconciliation: Reconciliation | undefined
}

export interface FaultRun {
  machine: Machine
  seed: number
  kills: number
  progress(line: string): void
}

/** Plays one fault on a scene of its own and reconciles what is left. Never rejects: a fault that breaks off is an untrue line. */
export async function playFault(fault: Fault, place: number, run: FaultRun): Promise<FaultResult> {
  const startedMs = performance.now()
  const seconds = () => (performance.now() - startedMs) / 1000
  let scene: Scene | undefined
  try {
    scene = await Scene.set(run.machine, stageName(fault.name, place), {
      seed: run.seed + place,
      settings: fault.settings,
      databaseTls: fault.databaseTls ?? false,
      ground: fault.ground,
    })
    await wait(loadMs)
    const random = seededRandom(Math.imul(run.seed, 0x9e3779b1) ^ place)
    const seen = await fault.bring({ scene, random, kills: run.kills, progress: run.progress })
    await wait(loadMs)
    await scene.endLoad()
    const { reconciliation, left } = await settle(scene)
    const faults = [
      ...faultsOf(reconciliation, fault.deadLetters ?? 0, left),
      ...((await fault.untrueAtRest?.(scene)) ?? []),
    ]
    return {
      name: fault.name,
      ok: faults.length === 0,
      seen: [...faults, seen].join('; '),
      kills: scene.kills,
      seconds: seconds(),
      reconciliation,
    }
  } catch (error) {
    run.progress(error instanceof Error ? (error.stack ?? error.message) : String(error))
    // Its whole is above; the table has no room for last words.
    const seen = (error instanceof Error ? error.message : String(error))
      .split('\n', 1)
      .join('')
      .slice(0, 200)
    return {
      name: fault.name,
      ok: false,
      seen,
      kills: scene?.kills ?? 0,
      seconds: seconds(),
      reconciliation: undefined,
    }
  } finally {
    await scene?.close()
  }
}

/** Lets everything come to rest, then reads it. */
async function settle(scene: Scene): Promise<{ reconciliation: Reconciliation; left: string[] }> {
  const { stage } = scene
  const drained = await queueEmpty(stage, drainWithinMs)
  const swept = await until(
    async () => {
      const [row] = await stage.sql<{ some: boolean }[]>`SELECT EXISTS (SELECT FROM abandoned_batch) AS some`
      return row?.some === false
    },
    sweptWithinMs + 6 * LEASE_SECONDS * 1000,
  )
  const badExits = await scene.endProcesses()
  const left = [
    ...(drained ? [] : [`the queue was not empty after ${drainWithinMs / 1000} s`]),
    ...(swept ? [] : ['the sweeper left abandoned batches']),
    ...badExits.map((exit) => `ended badly: ${exit}`),
    ...stage.processes.flatMap(({ name, strayLines }) =>
      strayLines.length === 0 ? [] : [`${name} printed what is no log line: ${strayLines[0]}`],
    ),
  ]
  return { reconciliation: await reconcile(stage, scene.ledger), left }
}

function faultsOf(found: Reconciliation, deadLetters: number, left: readonly string[]): string[] {
  const { answered, stored, waiting, dead, lost, twice, untrue } = found
  return [
    ...left,
    ...(answered === 0 ? ['no request was answered 200'] : []),
    ...(answered === stored + waiting + dead
      ? []
      : [`${answered} answered 200, ${stored + waiting + dead} found`]),
    ...(dead === deadLetters ? [] : [`${dead} dead letters, ${deadLetters} expected`]),
    ...lost.slice(0, 3).map((marker) => `${marker} is lost`),
    ...twice.slice(0, 3).map((marker) => `${marker} is there twice`),
    ...untrue,
  ]
}

/** Names of databases and buckets: short, and of letters, digits and hyphens. */
function stageName(name: string, place: number): string {
  const letters = name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')
  return `f${place}-${letters}`.slice(0, 40).replace(/-+$/, '')
}
