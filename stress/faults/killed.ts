import { setTimeout as wait } from 'node:timers/promises'
import { expect, type Fault } from './fault.ts'
import type { Role } from './scene.ts'

const backWithinMs = 15_000

/** One of two processes of a role, killed with -9 under load and started again. */
function killedOnce(role: Role): Fault {
  return {
    name: `kill -9 of ${role === 'ingress' ? 'an ingress' : 'a worker'}`,
    async bring({ scene, random }) {
      await wait(random.between(300, 1500))
      await scene.kill(role, 0)
      await wait(random.between(0, 1000))
      await scene.start(role, 0)
      expect(
        await scene.moreStored(60, backWithinMs),
        'after the kill, 60 further requests were not answered 200',
      )
      return 'killed and started again'
    },
  }
}

export const killedFaults: readonly Fault[] = [killedOnce('ingress'), killedOnce('worker')]
