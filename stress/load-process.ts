import { fork } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import type { LoadJob, LoadResult } from './load.ts'

/** Runs a load in a process of its own, so that neither side's event loop slows down the other's. */
export async function loadInProcess(job: LoadJob): Promise<LoadResult> {
  const child = fork(path.join(import.meta.dirname, 'load.ts'), {
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  try {
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the load process ended with ${code} and without a result`)
    })
    child.send(job)
    const [result] = (await Promise.race([once(child, 'message'), ended])) as [LoadResult]
    // Its end is expected from here on.
    ended.catch(() => undefined)
    return result
  } finally {
    process.off('exit', kill)
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
}
