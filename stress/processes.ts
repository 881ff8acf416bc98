import { readdirSync, readFileSync } from 'node:fs'

/** `/proc` counts CPU time in ticks of 1/100 s on every Linux that Node runs on (`getconf CLK_TCK`). */
const secondsPerTick = 1 / 100

/** What a process, with everything that it started, has used so far. */
export interface Usage {
  readonly cpuSeconds: number
  /** Resident memory at this moment: each process's own, and once the largest share of what they have in common. */
  readonly residentBytes: number
  /** The same without what they have in common, such as the buffers of PostgreSQL. */
  readonly ownBytes: number
}

interface ProcessState {
  parent: number
  ownTicks: number
  /** Of children that have ended and were waited for. */
  endedTicks: number
}

/**
 * CPU time and memory of a process and its descendants, out of `/proc`; undefined where there is no `/proc`, and for
 * a process that is gone. A server of many processes, such as PostgreSQL, is asked for by its first one.
 */
export function usageOf(pid: number): Usage | undefined {
  const all = readStates()
  if (all?.get(pid) === undefined) return undefined
  let [ticks, privateBytes, sharedBytes] = [0, 0, 0]
  for (const [id, state] of all) {
    if (!descendsFrom(all, id, pid)) continue
    ticks += state.ownTicks + state.endedTicks
    const memory = readMemory(id)
    privateBytes += memory.privateBytes
    sharedBytes = Math.max(sharedBytes, memory.sharedBytes)
  }
  return {
    cpuSeconds: ticks * secondsPerTick,
    residentBytes: privateBytes + sharedBytes,
    ownBytes: privateBytes,
  }
}

function descendsFrom(all: ReadonlyMap<number, ProcessState>, id: number, ancestor: number): boolean {
  for (let current: number | undefined = id; current !== undefined && current > 0; ) {
    if (current === ancestor) return true
    current = all.get(current)?.parent
  }
  return false
}

function readStates(): Map<number, ProcessState> | undefined {
  let names: string[]
  try {
    names = readdirSync('/proc')
  } catch {
    // Not Linux: usage is not measured, which the output says.
    return undefined
  }
  const states = new Map<number, ProcessState>()
  for (const name of names) {
    if (!/^\d+$/.test(name)) continue
    const state = readState(name)
    if (state !== undefined) states.set(Number(name), state)
  }
  return states
}

/** proc(5), /proc/pid/stat: the name in parentheses may hold blanks, so fields are counted from behind it. */
function readState(pid: string): ProcessState | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    const field = (place: number) => Number(fields[place - 3])
    return { parent: field(4), ownTicks: field(14) + field(15), endedTicks: field(16) + field(17) }
  } catch {
    // It ended between the listing and now.
    return undefined
  }
}

function readMemory(pid: number): { privateBytes: number; sharedBytes: number } {
  try {
    const text = readFileSync(`/proc/${pid}/status`, 'latin1')
    const kilobytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0)
    return {
      privateBytes: (kilobytes('RssAnon') + kilobytes('RssFile')) * 1024,
      sharedBytes: kilobytes('RssShmem') * 1024,
    }
  } catch {
    // It ended between the listing and now.
    return { privateBytes: 0, sharedBytes: 0 }
  }
}

/** Keeps the largest memory and the CPU time of several processes while something runs. */
export class UsageWatch {
  readonly #pids: ReadonlyMap<string, number>
  readonly #first = new Map<string, Usage>()
  readonly #last = new Map<string, Usage>()
  readonly #peakBytes = new Map<string, number>()

  constructor(pids: ReadonlyMap<string, number>) {
    this.#pids = pids
    this.look()
  }

  /** To be called every second or so, and at the end. */
  look(): void {
    for (const [name, pid] of this.#pids) {
      const usage = usageOf(pid)
      if (usage === undefined) continue
      if (!this.#first.has(name)) this.#first.set(name, usage)
      this.#last.set(name, usage)
      this.#peakBytes.set(name, Math.max(this.#peakBytes.get(name) ?? 0, usage.residentBytes))
    }
  }

  /** CPU seconds since the watch began, and the largest memory, by name. */
  result(): { name: string; cpuSeconds: number; peakBytes: number }[] {
    return [...this.#pids.keys()].map((name) => ({
      name,
      cpuSeconds: (this.#last.get(name)?.cpuSeconds ?? 0) - (this.#first.get(name)?.cpuSeconds ?? 0),
      peakBytes: this.#peakBytes.get(name) ?? 0,
    }))
  }
}

/**
 * The most memory that one process has had resident since it began, as the kernel counted it: no peak is missed between
 * two looks. Undefined where there is no `/proc`, and for a process that is gone.
 */
export function peakResidentBytes(pid: number): number | undefined {
  try {
    const found = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))
    return found === null ? undefined : Number(found[1]) * 1024
  } catch {
    // Not Linux, or it has ended.
    return undefined
  }
}
