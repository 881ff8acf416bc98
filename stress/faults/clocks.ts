import { setTimeout as wait } from 'node:timers/promises'
import { until } from '../waiting.ts'
import { FakeClock } from './fake-clock.ts'
import { expect, type Fault } from './fault.ts'
import { LEASE_SECONDS, type Scene } from './scene.ts'

const places = [0, 1] as const
const minute = 60

/** Both workers with clocks of their own, which are so many seconds off at first; with right ones again in the end. */
async function withClocks(
  scene: Scene,
  offsets: readonly [number, number],
  use: (clocks: readonly [FakeClock, FakeClock]) => Promise<string>,
): Promise<string> {
  const clocks = await Promise.all([FakeClock.make(offsets[0]), FakeClock.make(offsets[1])])
  try {
    await Promise.all(places.map((place) => replace(scene, place, clocks[place].environment)))
    const seen = await use(clocks)
    // What follows wants processes that know the time.
    await Promise.all(places.map((place) => replace(scene, place, {})))
    return seen
  } finally {
    for (const clock of clocks) await clock.remove()
  }
}

/** Ends a worker in good order and starts another one in its place. */
async function replace(
  scene: Scene,
  place: number,
  environment: Readonly<Record<string, string>>,
): Promise<void> {
  const worker = scene.process('worker', place)
  const code = await worker.terminate()
  expect(code === 0, `${worker.name} ended with ${code} when it was told to stop`)
  await scene.start('worker', place, environment)
}

/** The wall clock of a process, as its log lines have it, against ours. */
function offsetSeconds(scene: Scene, place: number): number {
  const worker = scene.process('worker', place)
  const stamped = worker.log.findLast((line) => typeof line.time === 'string')
  return Math.round((Date.parse(String(stamped?.time)) - Date.now()) / 1000)
}

/** Waits until the log of each worker is off by about so much. Answers what it was. */
async function offBy(scene: Scene, offsets: readonly [number, number]): Promise<string> {
  const seen = () => places.map((place) => offsetSeconds(scene, place))
  const off = await until(
    () => seen().every((seconds, place) => Math.abs(seconds - (offsets[place] ?? 0)) < minute),
    10_000,
  )
  expect(off, `the clocks were off by ${seen().join(' and ')} s, not by ${offsets.join(' and ')}`)
  return seen().join(' and ')
}

const jumps: Fault = {
  name: 'clocks of workers that are 10 minutes apart, and jump',
  // Each batch that is stored is a line with the time.
  settings: { LOG_LEVEL: 'debug' },
  bring: ({ scene }) =>
    withClocks(scene, [10 * minute, -10 * minute], async (clocks) => {
      const before = await offBy(scene, [10 * minute, -10 * minute])
      expect(await scene.moreStored(60, 20_000), 'nothing was taken while the clocks were wrong')
      await clocks[0].set(-10 * minute)
      await clocks[1].set(10 * minute)
      await wait(2 * LEASE_SECONDS * 1000)
      const after = await offBy(scene, [-10 * minute, 10 * minute])
      const takeovers = (await Promise.all(scene.workers.map((worker) => worker.metrics()))).reduce(
        (sum, values) => sum + (values.get('sluice_takeovers_total') ?? 0),
        0,
      )
      expect(takeovers === 0, `${takeovers} leases of living workers were taken over`)
      return `off by ${before} s, then by ${after} s; no lease was taken over`
    }),
}

const skewed: Fault = {
  name: 'H8: workers 20 minutes slow, whom the store refuses',
  settings: { CIRCUIT_FAILURE_THRESHOLD: '3' },
  bring: ({ scene }) =>
    withClocks(scene, [0, 0], async (clocks) => {
      for (const clock of clocks) await clock.set(-20 * minute)
      const complains = () =>
        scene.workers.every((worker) =>
          worker.log.some(
            (line) => line.event === 'circuit_open' && JSON.stringify(line).includes('RequestTimeTooSkewed'),
          ),
        )
      expect(await until(complains, 20_000), 'not both workers said RequestTimeTooSkewed')
      const off = await offBy(scene, [-20 * minute, -20 * minute])
      const [row] = await scene.stage.sql<{ attempts: number; outages: number; dead: number }[]>`
        SELECT coalesce(max(attempts), 0)::int AS attempts, coalesce(max(outages), 0)::int AS outages, (SELECT count(*)::int FROM dead_letter) AS dead
        FROM ingestion_batch`
      expect(row !== undefined && row.outages > 0, 'no batch counted the outage')
      expect(
        row.attempts === 0 && row.dead === 0,
        `${row.attempts} attempts counted, ${row.dead} dead letters`,
      )
      return `off by ${off} s; both say so by name, no attempt counted; stored once the clocks were right`
    }),
}

export const clockFaults: readonly Fault[] = [jumps, skewed]
