import { execFileSync } from 'node:child_process'
import { readFileSync, readlinkSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'

/** What `postmaster.pid` says, and whether it is true. */
export type PostmasterState =
  | { readonly kind: 'none' }
  /** There is a file without a process id in it: a server is just starting, or a crash cut it off. */
  | { readonly kind: 'empty' }
  /** The process is gone. */
  | { readonly kind: 'dead'; readonly pid: number }
  /** The id belongs to another program now. */
  | { readonly kind: 'stranger'; readonly pid: number }
  | { readonly kind: 'running'; readonly pid: number; readonly socketFolder: string | undefined }

/**
 * Reads `postmaster.pid` (PostgreSQL source, miscadmin.h, "lock file") and looks whether its process is a server of
 * this folder.
 */
export function readPostmaster(dataFolder: string): PostmasterState {
  let lines: string[]
  try {
    lines = readFileSync(join(dataFolder, 'postmaster.pid'), 'utf8').split('\n')
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return { kind: 'none' }
    throw thrown
  }
  const pid = Number.parseInt(lines[0] ?? '', 10)
  if (!Number.isInteger(pid) || pid <= 0) return { kind: 'empty' }
  if (!isAlive(pid)) return { kind: 'dead', pid }
  if (!isPostmasterOf(pid, dataFolder)) return { kind: 'stranger', pid }
  // The fifth line, the folder of the socket, is written a moment after the first.
  return { kind: 'running', pid, socketFolder: lines[4] || undefined }
}

/**
 * Makes a `postmaster.pid` that is not true harmless. The server removes one whose process is gone; a stranger's id it
 * would respect for ever. It takes the id of its own parent for a leftover too, and then still looks whether the shared
 * memory named in the file is in use, which a deleted file would not let it do.
 */
export function disownPostmasterPid(dataFolder: string, state: PostmasterState): void {
  const path = join(dataFolder, 'postmaster.pid')
  if (state.kind === 'empty') rmSync(path, { force: true })
  if (state.kind !== 'stranger') return
  const [, ...rest] = readFileSync(path, 'utf8').split('\n')
  writeFileSync(path, [String(process.pid), ...rest].join('\n'))
}

/** Whether a process has this id, of whatever user. One that ended and was not waited for has ended. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ESRCH') return false
  }
  return processState(pid) !== 'Z'
}

function processState(pid: number): string | undefined {
  try {
    // The name, in parentheses, may hold anything.
    return /^.*\) (\S)/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1]
  } catch {
    // No /proc on this system.
    return undefined
  }
}

/** Whether the process is a PostgreSQL server whose working folder is the data folder, as every postmaster's is. */
export function isPostmasterOf(pid: number, dataFolder: string): boolean {
  const folder = realpathSync(dataFolder)
  if (process.platform !== 'linux') {
    const command = execFileSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8' })
    return command.includes('postgres') && command.includes(dataFolder)
  }
  try {
    return (
      basename(readlinkSync(`/proc/${pid}/exe`)).startsWith('postgres') &&
      readlinkSync(`/proc/${pid}/cwd`) === folder
    )
  } catch {
    // Gone, or of another user, who could not run a server in our folder.
    return false
  }
}
