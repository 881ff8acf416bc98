import { setTimeout as wait } from 'node:timers/promises'
import { expect, type Fault, type FaultContext } from './fault.ts'
import type { Role } from './scene.ts'

const backWithinMs = 30_000
/** Requests that must be answered 200 after the last kill. */
const requestsAfter = 60

/** What can be killed, and what it takes until it is back. */
type Victim = 'ingress' | 'worker' | 'postgresql' | 'minio'

/** Kills one with -9 and starts it again, each at a random moment. */
async function killAndStart({ scene, random }: FaultContext, victim: Victim): Promise<void> {
  const { machine } = scene
  await wait(random.between(50, 600))
  switch (victim) {
    case 'ingress':
    case 'worker': {
      const place = random.between(0, 1)
      await scene.kill(victim, place)
      await wait(random.between(0, 400))
      await scene.start(victim, place)
      return
    }
    case 'postgresql':
      scene.kills++
      await machine.postgres.crash()
      await wait(random.between(0, 400))
      await machine.postgres.restart()
      return
    case 'minio':
      scene.kills++
      await machine.crashMinio()
      await wait(random.between(0, 400))
      await machine.restartMinio()
  }
}

async function goesOn({ scene }: FaultContext): Promise<void> {
  const done = await scene.moreStored(requestsAfter, backWithinMs)
  expect(done, `${requestsAfter} further requests were not answered 200 within ${backWithinMs / 1000} s`)
}

function killed(victim: Victim, name: string): Fault {
  return {
    name: `kill -9 of ${name}`,
    async bring(context) {
      await killAndStart(context, victim)
      await goesOn(context)
      return 'back, and requests are taken'
    },
  }
}

/** Ends of processes only: a server of all scenes is killed less often, because it takes longer to come back. */
const victims: readonly [Victim, ...Victim[]] = [
  'ingress',
  'ingress',
  'worker',
  'worker',
  'worker',
  'postgresql',
  'minio',
]

/** kill -9 of anything, again and again. */
export const manyKills: Fault = {
  name: 'kill -9 of anything, again and again',
  async bring(context) {
    const { scene, random, kills, progress } = context
    const counts = new Map<Victim, number>()
    while (scene.kills < kills) {
      const victim = random.pick(victims)
      await killAndStart(context, victim)
      counts.set(victim, (counts.get(victim) ?? 0) + 1)
      if (scene.kills % 10 === 0) progress(`${scene.kills} of ${kills} kills`)
    }
    await goesOn(context)
    return [...counts].map(([victim, count]) => `${victim} × ${count}`).join(', ')
  },
}

export const killFaults: readonly Fault[] = [
  killed('ingress', 'an ingress'),
  killed('worker', 'a worker'),
  killed('postgresql', 'PostgreSQL'),
  killed('minio', 'MinIO'),
  manyKills,
]

/** A process is told to stop and started again, as an operator does it. */
async function restart({ scene }: FaultContext, role: Role, place: number): Promise<void> {
  const code = await scene.process(role, place).terminate()
  expect(code === 0, `${role} ${place} ended with ${code} when it was told to stop`)
  await scene.start(role, place)
}

export const rollingRestart: Fault = {
  name: 'rolling restart of everything',
  async bring(context) {
    for (const place of [0, 1]) {
      await restart(context, 'ingress', place)
      await restart(context, 'worker', place)
    }
    await goesOn(context)
    return 'four processes, each ended with 0'
  },
}
