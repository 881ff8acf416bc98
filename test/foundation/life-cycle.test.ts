import { expect, test } from 'vitest'
import { LifeCycle } from '../../src/foundation/life-cycle.ts'
import type { Service } from '../../src/foundation/service.ts'
import { manualClock } from '../support/clock.ts'

const patient = new AbortController().signal

function service(name: string, said: string[], stop: () => Promise<void> = async () => undefined): Service {
  return {
    name,
    start: async () => void said.push(`start ${name}`),
    stop: async () => {
      said.push(`stop ${name}`)
      await stop()
    },
  }
}

test('services stop in the opposite order of their start', async () => {
  const said: string[] = []
  const life = new LifeCycle(manualClock())
  for (const name of ['database', 'relay', 'ingress']) await life.start(service(name, said))
  await Promise.all([life.stop(patient), life.stop(patient)])
  expect(said).toEqual([
    'start database',
    'start relay',
    'start ingress',
    'stop ingress',
    'stop relay',
    'stop database',
  ])
})

test('one that cannot stop keeps no other from stopping', async () => {
  const said: string[] = []
  const life = new LifeCycle(manualClock())
  await life.start(service('database', said))
  await life.start(service('relay', said, () => Promise.reject(new Error('stuck'))))
  await expect(life.stop(patient)).rejects.toThrow('stuck')
  expect(said.at(-1)).toBe('stop database')
})

test('one that hangs is left four seconds after everybody was told to give up', async () => {
  const said: string[] = []
  const clock = manualClock()
  const life = new LifeCycle(clock)
  await life.start(service('database', said))
  await life.start(service('relay', said, () => new Promise(() => undefined)))
  const giveUp = new AbortController()
  const stopping = life.stop(giveUp.signal).catch((error: Error) => error.message)
  giveUp.abort()
  await clock.advance(3999)
  expect(said.at(-1)).toBe('stop relay')
  await clock.advance(1)
  expect(await stopping).toBe('the relay did not stop in time')
  expect(said.at(-1)).toBe('stop database')
})
