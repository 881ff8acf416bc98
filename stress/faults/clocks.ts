import { existsSync, readdirSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { until } from '../waiting.ts'
import { expect, type Fault } from './fault.ts'
import { LEASE_SECONDS, type Scene } from './scene.ts'

const libraryFolders = ['/usr/lib', '/usr/local/lib']

/** libfaketime, which stands between a process and its clock. */
function faketimeLibrary(): string {
  for (const folder of libraryFolders.filter((one) => existsSync(one))) {
    const inner = readdirSync(folder).map((name) => path.join(folder, name, 'faketime'))
    const files = [path.join(folder, 'faketime'), ...inner].map((one) => path.join(one, 'libfaketime.so.1'))
    const found = files.find((file) => existsSync(file))
    if (found !== undefined) return found
  }
  throw new Error('this fault needs libfaketime, and it is not there: apt-get install faketime')
}

/** Clocks of processes that are set by writing a file. Their monotonic clock is left alone, as a real one is by a jump. */
async function withClocks(
  scene: Scene,
  use: (
    clock: (place: number) => { settings: Record<string, string>; set(offset: string): Promise<void> },
  ) => Promise<string>,
): Promise<string> {
  const library = faketimeLibrary()
  const folder = await mkdtemp(path.join(tmpdir(), 'sluice-clocks-'))
  const replaced = new Set<number>()
  try {
    return await use((place) => {
      const file = path.join(folder, `worker-${place}`)
      replaced.add(place)
      return {
        settings: {
          LD_PRELOAD: library,
          FAKETIME_TIMESTAMP_FILE: file,
          FAKETIME_NO_CACHE: '1',
          FAKETIME_DONT_FAKE_MONOTONIC: '1',
          DONT_FAKE_MONOTONIC: '1',
        },
        set: (offset) => writeFile(file, `${offset}\n`),
      }
    })
  } finally {
    // What follows wants processes that know the time.
    for (const place of replaced) {
      await scene.process('worker', place).terminate()
      await scene.start('worker', place)
    }
    await rm(folder, { recursive: true, force: true })
  }
}

/** The wall clock of a process, as its log lines have it, against ours. */
async function offsetSeconds(scene: Scene, place: number): Promise<number> {
  const worker = scene.process('worker', place)
  const stamped = worker.log.findLast((line) => typeof line.time === 'string')
  return Math.round((Date.parse(String(stamped?.time)) - Date.now()) / 1000)
}

const jumps: Fault = {
  name: 'clocks of workers that are 10 minutes apart, and jump',
  bring: ({ scene }) =>
    withClocks(scene, async (clockOf) => {
      const seen: number[] = []
      const clocks = [clockOf(0), clockOf(1)] as const
      for (const [place, clock] of clocks.entries()) {
        await clock.set(place === 0 ? '+10m' : '-10m')
        await scene.process('worker', place).terminate()
        await scene.start('worker', place, clock.settings)
        seen.push(await offsetSeconds(scene, place))
      }
      expect(
        Math.min(...seen) < -500 && Math.max(...seen) > 500,
        `the clocks were off by ${seen.join(' and ')} s`,
      )
      expect(await scene.moreStored(60, 20_000), 'nothing was taken while the clocks were wrong')
      await clocks[0].set('-10m')
      await clocks[1].set('+10m')
      await wait(2 * LEASE_SECONDS * 1000)
      const takeovers = (await Promise.all(scene.workers.map((worker) => worker.metrics()))).reduce(
        (sum, values) => sum + (values.get('sluice_takeovers_total') ?? 0),
        0,
      )
      expect(takeovers === 0, `${takeovers} leases of living workers were taken over`)
      return `off by ${seen.join(' and ')} s, then the other way round; no lease was taken over`
    }),
}

const skewed: Fault = {
  name: 'H8: a worker 20 minutes slow, whom the store refuses',
  settings: { CIRCUIT_FAILURE_THRESHOLD: '3' },
  bring: ({ scene }) =>
    withClocks(scene, async (clockOf) => {
      for (const place of [0, 1]) {
        const clock = clockOf(place)
        await clock.set('+0m')
        await scene.process('worker', place).terminate()
        await scene.start('worker', place, clock.settings)
        await clock.set('-20m')
      }
      const complains = () =>
        scene.workers.some((worker) =>
          worker.log.some(
            (line) => line.event === 'circuit_open' && JSON.stringify(line).includes('RequestTimeTooSkewed'),
          ),
        )
      expect(await until(complains, 20_000), 'no worker said RequestTimeTooSkewed')
      const [row] = await scene.stage.sql<{ attempts: number; outages: number; dead: number }[]>`
        SELECT coalesce(max(attempts), 0)::int AS attempts, coalesce(max(outages), 0)::int AS outages, (SELECT count(*)::int FROM dead_letter) AS dead
        FROM ingestion_batch`
      expect(row !== undefined && row.outages > 0, 'no batch counted the outage')
      expect(
        row.attempts === 0 && row.dead === 0,
        `${row.attempts} attempts counted, ${row.dead} dead letters`,
      )
      return 'said by name, no attempt counted; stored once the clocks were right'
    }),
}

export const clockFaults: readonly Fault[] = [jumps, skewed]
