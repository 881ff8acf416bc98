import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import type { Clock } from '../foundation/clock.ts'
import { Failure } from '../foundation/failure.ts'
import { isAlive } from './postmaster-pid.ts'

const WAIT_MS_MAX = 30_000
const POLL_MS = 50

/** Whether a lock with our process id is ours, or of a process that had the same id before a restart. */
const held = new Set<string>()

/**
 * Runs `work` while no other process of this machine runs any under the same `path`: making a cluster and starting a
 * server must not happen twice at once. A process that died with the lock does not keep it.
 *
 * @throws Failure `configuration` when another process keeps it for more than 30 s, `outage` when `signal` aborts first.
 */
export async function withStartLock<T>(
  path: string,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
  work: () => Promise<T>,
): Promise<T> {
  const until = clock.monotonicMs() + WAIT_MS_MAX
  while (!tryLock(path)) {
    const holder = readHolder(path)
    if (holder !== undefined && (holder === process.pid ? !held.has(path) : !isAlive(holder))) {
      breakLock(path, holder)
      continue
    }
    if (clock.monotonicMs() > until) {
      throw new Failure(
        'configuration',
        `Process ${holder ?? '(unknown)'} is starting PostgreSQL in the same folder; if it is not, delete ${path}.`,
      )
    }
    if (signal.aborted) throw new Failure('outage', 'PostgreSQL was stopped before it was started.')
    await clock.sleep(POLL_MS, signal)
  }
  held.add(path)
  try {
    return await work()
  } finally {
    held.delete(path)
    rmSync(path, { force: true })
  }
}

function tryLock(path: string): boolean {
  try {
    writeFileSync(path, String(process.pid), { flag: 'wx', mode: 0o600 })
    return true
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw thrown
  }
}

function readHolder(path: string): number | undefined {
  try {
    return Number.parseInt(readFileSync(path, 'utf8'), 10) || undefined
  } catch {
    // Given up meanwhile.
    return undefined
  }
}

/** Renaming decides who breaks it. Whoever took away a lock that was taken anew meanwhile puts it back. */
function breakLock(path: string, holder: number): void {
  const broken = `${path}.${process.pid}`
  try {
    renameSync(path, broken)
  } catch {
    // Another process was first.
    return
  }
  if (readHolder(broken) !== holder) renameSync(broken, path)
  else rmSync(broken, { force: true })
}
