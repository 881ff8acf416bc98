import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { expect, test } from 'vitest'
import { systemClock } from '../../src/foundation/clock.ts'
import { CpuShare, openMemoryShare, type ThreadTimes } from '../../src/ingress/process-load.ts'
import { manualClock } from '../support/clock.ts'

test('a thread that becomes busy reads as overloaded after four seconds, and not before', async () => {
  const clock = manualClock()
  let times: ThreadTimes = { idle: 0, active: 0 }
  const cpu = new CpuShare(clock, () => times)
  const lookAfter = async (ms: number, busy: number) => {
    times = { idle: times.idle + ms * (1 - busy), active: times.active + ms * busy }
    await clock.advance(ms)
    return cpu.look()
  }
  await lookAfter(60_000, 0.4)
  const seen: number[] = []
  for (let second = 0; second < 5; second++) seen.push(await lookAfter(1_000, 1))
  expect(seen.map((share) => share.toFixed(2))).toEqual(['0.57', '0.69', '0.78', '0.84', '0.89'])
})

test('the reading is the same however often is looked', async () => {
  const readings: number[] = []
  for (const everyMs of [100, 500, 2_000]) {
    const clock = manualClock()
    let active = 0
    const cpu = new CpuShare(clock, () => ({ idle: 0, active }))
    let share = 0
    for (let ms = 0; ms < 4_000; ms += everyMs) {
      active += everyMs
      await clock.advance(everyMs)
      share = cpu.look()
    }
    readings.push(Number(share.toFixed(6)))
  }
  expect(new Set(readings).size).toBe(1)
})

test('a thread that does nothing but work reads as busy, and one that waits does not', async () => {
  const share = async (work: () => unknown) => {
    const cpu = new CpuShare({ ...systemClock, monotonicMs: manualTimes() })
    await work()
    return cpu.look()
  }
  const busy = await share(() => {
    const untilMs = performance.now() + 300
    while (performance.now() < untilMs) JSON.stringify({ some: 'work' })
  })
  const idle = await share(() => systemClock.sleep(300))
  expect(busy).toBeGreaterThan(0.9)
  expect(idle).toBeLessThan(busy / 2)
})

test('in a container memory is a share of its limit, without what the kernel can take back', async () => {
  await using kernel = await kernelFiles({
    'proc/self/cgroup': '0::/kubepods/pod1\n',
    'sys/fs/cgroup/kubepods/pod1/memory.max': '1000000\n',
    'sys/fs/cgroup/kubepods/pod1/memory.current': '950000\n',
    'sys/fs/cgroup/kubepods/pod1/memory.stat': 'anon 700000\nfile 250000\ninactive_file 150000\n',
  })
  const share = await openMemoryShare(kernel.root)
  const before = await share()
  await writeFile(path.join(kernel.root, 'sys/fs/cgroup/kubepods/pod1/memory.current'), '1050000\n')
  expect([before, await share()]).toEqual([0.8, 0.9])
})

test.for([
  ['a group without a limit', 'max\n'],
  ['a limit above what the machine has', `${2 ** 60}\n`],
  ['no groups at all', undefined],
])('with %s memory is a share of what the machine has', async ([, limit]) => {
  await using kernel = await kernelFiles(
    limit === undefined
      ? {}
      : {
          'proc/self/cgroup': '0::/\n',
          'sys/fs/cgroup/memory.max': limit,
          'sys/fs/cgroup/memory.current': '0\n',
          'sys/fs/cgroup/memory.stat': 'inactive_file 0\n',
        },
  )
  const share = await openMemoryShare(kernel.root)
  expect(await share()).toBeCloseTo(1 - process.availableMemory() / os.totalmem(), 1)
  expect(await share()).toBeGreaterThan(0)
})

/** A clock on which each look comes an hour after the last, so that nothing of an earlier reading is left. */
function manualTimes(): () => number {
  let nowMs = 0
  return () => {
    nowMs += 3_600_000
    return nowMs
  }
}

/** A folder with the kernel's files in it. */
async function kernelFiles(files: Readonly<Record<string, string>>) {
  const root = await mkdtemp(path.join(os.tmpdir(), 'sluice-kernel-'))
  for (const [name, text] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(root, name)), { recursive: true })
    await writeFile(path.join(root, name), text)
  }
  return { root, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) }
}
