import { agree } from './disagreement.ts'
import type { Model } from './model.ts'
import { claim, count, sweep, takeOver, timePasses } from './queue-steps.ts'
import { end } from './settle-steps.ts'
import { Command, type Planner, type Stand } from './steps.ts'

const all = {
  worker: 'the last worker',
  rowsMax: 1_000,
  bytesMax: 1_000_000_000,
  firstAnySize: true,
  isProbe: false,
}

/** Faults are over: one worker stores whatever waits, and the sweeper looks until nothing is left over. */
export async function drain(model: Model, stand: Stand): Promise<void> {
  const take = async (planner: Planner) => {
    const command = new Command(planner)
    const isPossible = command.check(model)
    if (isPossible) await command.run(model, stand)
    return isPossible
  }
  await take(count())
  model.hands.splice(0)
  for (const status of ['processing', 'failed'] as const) while (await take(timePasses(status, 0)));
  while (model.batches.size > 0) {
    await take(takeOver(all))
    await take(end({ how: 'complete' }, 'holder', 0))
  }
  while (model.pending.length > 0) {
    await take(claim(all))
    await take(end({ how: 'complete' }, 'holder', 0))
  }
  while (await take(sweep()));
  agree('objects in the store', [...model.store].toSorted(), [...model.catalog.keys()].toSorted())
  const waiting = model.requests.filter(({ place }) => place.is === 'pending' || place.is === 'batched')
  agree(
    'requests that are neither stored nor dead',
    waiting.map(({ name }) => name),
    [],
  )
}
