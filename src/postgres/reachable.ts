import { randomUUID } from 'node:crypto'
import { existsSync, statSync } from 'node:fs'
import { chmod, cp, lstat, mkdir, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure } from '../foundation/failure.ts'
import { binariesIn, type PostgresBinaries } from './embedded-binaries.ts'
import type { ServerUser } from './server-user.ts'

const EXECUTE = 0o1
const EXECUTE_BY_OWNER = 0o100
/** Where copies of the programs are kept. Only root needs them, so only root writes there. */
export const CACHE_FOLDER = '/var/cache/sluice'

/** The folder on the way to `path`, itself included, that `user` may not enter; undefined when there is none. */
export function blockingFolder(path: string, user: ServerUser): string | undefined {
  const parent = dirname(path)
  const above = parent === path ? undefined : blockingFolder(parent, user)
  if (above !== undefined) return above
  if (!existsSync(path)) return undefined
  const { mode, uid, gid } = statSync(path)
  const shift = uid === user.uid ? 6 : gid === user.gid ? 3 : 0
  return (mode >> shift) & EXECUTE ? undefined : path
}

/**
 * Checks that the server's user can get to the data folder.
 *
 * @throws Failure `configuration` that names the folder in the way.
 */
export function requireReachable(dataDir: string, user: ServerUser): void {
  const blocked = blockingFolder(dataDir, user)
  if (blocked === undefined) return
  throw new Failure(
    'configuration',
    `PostgreSQL runs as the user ${user.name}, who may not enter ${blocked}, on the way to DATA_DIR=${dataDir}; ` +
      'set DATA_DIR to a folder that everybody may pass, for example DATA_DIR=/var/lib/sluice.',
  )
}

/**
 * The programs where `user` can run them: where they are, or, below a folder that only root may enter, a copy in
 * `cacheFolder`, which is made once for each version.
 */
export async function reachableBinaries(
  binaries: PostgresBinaries,
  user: ServerUser | undefined,
  cacheFolder: string,
): Promise<PostgresBinaries> {
  if (user === undefined || blockingFolder(join(binaries.folder, 'bin'), user) === undefined) return binaries
  const folder = join(cacheFolder, `postgresql-${binaries.version}`)
  if (!existsSync(folder)) await copyOnce(binaries.folder, folder)
  const blocked = blockingFolder(join(folder, 'bin'), user)
  if (blocked !== undefined) {
    throw new Failure(
      'configuration',
      `PostgreSQL runs as the user ${user.name}, who may enter neither ${binaries.folder} nor ${blocked}; move the ` +
        'installation to a folder that everybody may pass, or set DATABASE_URL.',
    )
  }
  return binariesIn(folder, binaries.version)
}

/** Copies beside the target and renames: a copy that was cut off is never taken for one, nor are two mixed. */
async function copyOnce(from: string, to: string): Promise<void> {
  const unfinished = `${to}.${randomUUID()}`
  try {
    await makeFolder(dirname(to), 0o755)
    await cp(from, unfinished, { recursive: true, verbatimSymlinks: true })
    await openForReading(unfinished)
    await rename(unfinished, to)
  } catch (cause) {
    await rm(unfinished, { recursive: true, force: true })
    // Another process has finished its copy first.
    if (existsSync(to)) return
    throw new Failure(
      'configuration',
      `The programs of PostgreSQL could not be copied to ${to}, where the user they run as could reach them.`,
      { cause },
    )
  }
}

/** Makes a folder and its missing parents with this mode, whatever the umask takes away from it. */
export async function makeFolder(path: string, mode: number): Promise<void> {
  const first = await mkdir(path, { recursive: true })
  if (first === undefined) return
  for (let made = path; made.length >= first.length; made = dirname(made)) await chmod(made, mode)
}

/** npm under a strict umask installs files that nobody else may read. */
async function openForReading(path: string): Promise<void> {
  const found = await lstat(path)
  if (found.isSymbolicLink()) return
  await chmod(path, found.isDirectory() || found.mode & EXECUTE_BY_OWNER ? 0o755 : 0o644)
  if (!found.isDirectory()) return
  for (const name of await readdir(path)) await openForReading(join(path, name))
}
