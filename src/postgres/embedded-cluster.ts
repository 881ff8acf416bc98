import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { appendFile, chown, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { coerceError, Failure } from '../foundation/failure.ts'
import type { PostgresBinaries } from './embedded-binaries.ts'
import type { ServerUser } from './server-user.ts'

/** The role that initdb makes, and the database that Sluice uses. */
export const EMBEDDED_USER = 'sluice'

/** Nothing of our own environment: PGPORT, PGOPTIONS or a locale that is not installed would reach the server. */
const environment = { LC_ALL: 'C.UTF-8', TZ: 'UTC' }

/**
 * Read before postgresql.auto.conf, so that `ALTER SYSTEM` has the last word. What makes a commit durable (fsync,
 * full_page_writes, synchronous_commit) keeps the server's default, which is on.
 */
const SETTINGS_FILE = 'sluice.conf'
const settings = {
  // Nobody reaches it but through the socket in a private folder.
  listen_addresses: '',
  unix_socket_permissions: '0700',
  max_connections: 100,
  shared_buffers: '128MB',
  // Rows live for seconds: the fewer checkpoints, the fewer pages are written that are dead by then.
  max_wal_size: '2GB',
  min_wal_size: '256MB',
  checkpoint_timeout: '15min',
  // Payloads are compressed already.
  wal_compression: 'off',
  random_page_cost: 1.1,
  autovacuum_naptime: '10s',
  // Parallel queries need /dev/shm, of which a container has 64 MB.
  max_parallel_workers_per_gather: 0,
  log_line_prefix: '%m [%p] %a ',
  log_checkpoints: 'off',
  log_timezone: 'UTC',
  timezone: 'UTC',
}

export interface ClusterOptions {
  binaries: PostgresBinaries
  user: ServerUser | undefined
  /** The folder that is made; `data` and `password` come to lie in it. */
  folder: string
  /** False leaves out the fsync of the new files: for clusters that live no longer than a test. */
  sync?: boolean
}

/** Makes a folder with a new cluster and its generated password. On failure the folder is gone again. */
export async function createCluster({ binaries, user, folder, sync = true }: ClusterOptions): Promise<void> {
  await mkdir(folder, { mode: 0o700 })
  try {
    const passwordFile = join(folder, 'password')
    await writeFile(passwordFile, randomBytes(24).toString('base64url'), { mode: 0o600 })
    if (user !== undefined) for (const path of [folder, passwordFile]) await chown(path, user.uid, user.gid)
    await promisify(execFile)(
      binaries.initdb,
      [
        `--pgdata=${join(folder, 'data')}`,
        `--username=${EMBEDDED_USER}`,
        `--pwfile=${passwordFile}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        '--locale=C.UTF-8',
        // Its order of text is the same on every machine and after every upgrade of libc.
        '--locale-provider=builtin',
        ...(sync ? [] : ['--no-sync']),
      ],
      { env: environment, cwd: '/', ...(user === undefined ? {} : { uid: user.uid, gid: user.gid }) },
    )
    await appendFile(join(folder, 'data', 'postgresql.conf'), `\ninclude_if_exists = '${SETTINGS_FILE}'\n`)
  } catch (thrown) {
    await rm(folder, { recursive: true, force: true })
    const stderr = (thrown as { stderr?: unknown }).stderr
    const said = typeof stderr === 'string' && stderr !== '' ? stderr.trim() : coerceError(thrown).message
    throw new Failure('configuration', `initdb could not make a database in ${folder}: ${said}`, {
      cause: thrown,
    })
  }
}

/** Writes our settings, which may change from one version of Sluice to the next, beside the server's own. */
export async function writeSettings(dataFolder: string, user: ServerUser | undefined): Promise<void> {
  const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value}'`)
  const path = join(dataFolder, SETTINGS_FILE)
  await writeFile(
    path,
    `# Written at every start. Use ALTER SYSTEM to change a setting.\n${lines.join('\n')}\n`,
    {
      mode: 0o600,
    },
  )
  if (user !== undefined) await chown(path, user.uid, user.gid)
}

/**
 * @throws Failure `configuration` when the folder holds no cluster or one of another major version.
 */
export async function requireVersion(dataFolder: string, { major }: PostgresBinaries): Promise<void> {
  let found: string
  try {
    found = (await readFile(join(dataFolder, 'PG_VERSION'), 'utf8')).trim()
  } catch (cause) {
    throw new Failure(
      'configuration',
      `${dataFolder} is there, but holds no PostgreSQL database that this user can read.`,
      { cause },
    )
  }
  if (found === major) return
  throw new Failure(
    'configuration',
    `${dataFolder} was written by PostgreSQL ${found}, and this version of Sluice brings PostgreSQL ${major}. Start ` +
      'the version of Sluice that wrote it, or move it with pg_upgrade.',
  )
}

/**
 * Starts the postmaster in a session of its own, so that Ctrl-C, which goes to the whole foreground process group,
 * does not reach it, and without any of our pipes, so that it outlives us. It is our child all the same: whoever is
 * process 1 of a container gets no other chance to notice its end.
 */
export function spawnPostmaster(options: {
  binaries: PostgresBinaries
  user: ServerUser | undefined
  dataFolder: string
  socketFolder: string
  logFile: string
}): ChildProcess {
  const { binaries, user, dataFolder, socketFolder, logFile } = options
  const log = openSync(logFile, 'a', 0o600)
  try {
    const child = spawn(binaries.postgres, ['-D', dataFolder, '-k', socketFolder], {
      detached: true,
      cwd: '/',
      env: environment,
      stdio: ['ignore', log, log],
      ...(user === undefined ? {} : { uid: user.uid, gid: user.gid }),
    })
    child.unref()
    return child
  } finally {
    closeSync(log)
  }
}
