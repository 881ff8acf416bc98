import { readFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import type { Clock } from '../foundation/clock.ts'

/** A burst of a second is no overload, nor is the first second of a process, before its code is compiled. */
const SMOOTHING_MS = 3_000

/** How long a thread has had nothing to do, and something, since it began, in milliseconds. */
export interface ThreadTimes {
  readonly idle: number
  readonly active: number
}

/**
 * The share of the time in which the thread that takes requests had something to do, smoothed over some seconds. It is
 * not the CPU time of the process: every request goes through this one thread, so that it is at its end however many
 * cores stand idle, and where the machine or a container's quota gives it less than a core, it is at its end before its
 * CPU time says so.
 */
export class CpuShare {
  readonly #clock: Clock
  readonly #times: () => ThreadTimes
  #last: ThreadTimes
  #lastMs: number
  #smoothed = 0

  constructor(clock: Clock, times: () => ThreadTimes = () => performance.eventLoopUtilization()) {
    this.#clock = clock
    this.#times = times
    this.#last = times()
    this.#lastMs = clock.monotonicMs()
  }

  /** The share, from 0 to 1, with what happened since the last look weighed in. */
  look(): number {
    const now = this.#times()
    const nowMs = this.#clock.monotonicMs()
    const activeMs = now.active - this.#last.active
    const allMs = activeMs + now.idle - this.#last.idle
    if (allMs > 0) {
      const weight = 1 - Math.exp(-(nowMs - this.#lastMs) / SMOOTHING_MS)
      this.#smoothed += weight * (activeMs / allMs - this.#smoothed)
    }
    this.#last = now
    this.#lastMs = nowMs
    return this.#smoothed
  }
}

/**
 * The share of the memory that is in use, from 0 to 1: of the limit of the control group that this process is in, as a
 * container has it, or else of the machine's. What the kernel can take back at any time does not count: neither the
 * machine's caches nor the inactive part of a group's, which fills up under any program that writes files.
 *
 * @param root where the kernel's files are.
 * @returns what reads it anew at each call.
 */
export async function openMemoryShare(root = '/'): Promise<() => Promise<number>> {
  const group = await controlGroup(root)
  const limitBytes = Number(await readText(path.join(group, 'memory.max')))
  const machineBytes = os.totalmem()
  if (!(limitBytes > 0 && limitBytes < machineBytes)) {
    return async () => 1 - process.availableMemory() / machineBytes
  }
  return async () => {
    const [current, stat] = await Promise.all([
      readText(path.join(group, 'memory.current')),
      readText(path.join(group, 'memory.stat')),
    ])
    const inactiveBytes = Number(/^inactive_file (\d+)$/m.exec(stat)?.[1] ?? 0)
    return Math.max(0, Number(current) - inactiveBytes) / limitBytes
  }
}

/** The folder of this process's group. Without control groups of version 2 nothing is in it. */
async function controlGroup(root: string): Promise<string> {
  const groups = await readText(path.join(root, 'proc/self/cgroup'))
  return path.join(root, 'sys/fs/cgroup', /^0::(.*)$/m.exec(groups)?.[1] ?? '/')
}

/** What the kernel says in a file; nothing when there is no such file, as on systems other than Linux. */
async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch {
    return ''
  }
}
