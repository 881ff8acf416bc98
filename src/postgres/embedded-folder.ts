import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Failure } from '../foundation/failure.ts'
import { EMBEDDED_USER } from './embedded-cluster.ts'
import { type DatabaseLocation, noTls, Secret } from './location.ts'
import type { ServerUser } from './server-user.ts'

/** No address to listen on, but the name of the socket has a port in it. */
const PORT = 5432
/** sizeof(sockaddr_un.sun_path), less the closing NUL. */
const SOCKET_PATH_BYTES_MAX = process.platform === 'darwin' ? 103 : 107
const LOG_BYTES_MAX = 16 * 1024 * 1024

/** Where the parts of an embedded server lie below `DATA_DIR`. */
export interface EmbeddedFolder {
  /** `DATA_DIR/postgres`: made in one piece, by a rename. */
  readonly home: string
  readonly data: string
  readonly passwordFile: string
  readonly logFile: string
  readonly startLock: string
}

/** The paths below `dataDir`; nothing is made. */
export function embeddedFolder(dataDir: string): EmbeddedFolder {
  const home = join(dataDir, 'postgres')
  return {
    home,
    data: join(home, 'data'),
    passwordFile: join(home, 'password'),
    logFile: join(dataDir, 'postgres.log'),
    startLock: join(dataDir, 'postgres.starting'),
  }
}

/** What the file system of an embedded server below `dataDir` has left for this user. A full one stops the server. */
export async function freeDiskBytes(dataDir: string): Promise<number> {
  const { bavail, bsize } = await statfs(embeddedFolder(dataDir).data)
  return bavail * bsize
}

/** The server in this folder as a location. */
export function locationIn(
  { passwordFile }: EmbeddedFolder,
  socketFolder: string,
  database: string,
): DatabaseLocation {
  let password: string
  try {
    password = readFileSync(passwordFile, 'utf8').trim()
  } catch (cause) {
    throw new Failure(
      'configuration',
      `The password of the embedded PostgreSQL in ${passwordFile} cannot be read.`,
      {
        cause,
      },
    )
  }
  return {
    host: socketFolder,
    port: PORT,
    database,
    user: EMBEDDED_USER,
    password: new Secret(password),
    tls: noTls,
  }
}

/**
 * The folder for the server's socket, made if need be: below `DATA_DIR`, or, when the path would be too long for a
 * socket, a private one among the temporary files, whose name is kept in a file.
 */
export function prepareSocketFolder({ home }: EmbeddedFolder, user: ServerUser | undefined): string {
  const usual = join(home, 'run')
  if (socketPathFits(usual)) {
    mkdirSync(usual, { recursive: true, mode: 0o700 })
    own(usual, user)
    return usual
  }
  const note = join(home, 'socket-folder')
  const kept = existsSync(note) ? readFileSync(note, 'utf8') : undefined
  if (kept !== undefined && isPrivateFolder(kept, user)) return kept
  const folder = mkdtempSync(join(tmpdir(), 'sluice-'))
  if (!socketPathFits(folder)) {
    throw new Failure(
      'configuration',
      `The path of a socket may have ${SOCKET_PATH_BYTES_MAX} bytes, which both DATA_DIR (${home}) and the folder for ` +
        `temporary files (${tmpdir()}) are too long for; set DATA_DIR to a shorter path.`,
    )
  }
  own(folder, user)
  writeFileSync(note, folder, { mode: 0o600 })
  return folder
}

function socketPathFits(folder: string): boolean {
  return Buffer.byteLength(join(folder, `.s.PGSQL.${PORT}`)) <= SOCKET_PATH_BYTES_MAX
}

/** Somebody else could have made a folder of that name after a reboot emptied the temporary files. */
function isPrivateFolder(path: string, user: ServerUser | undefined): boolean {
  if (!existsSync(path)) return false
  const { mode, uid } = lstatSync(path)
  return lstatSync(path).isDirectory() && uid === (user?.uid ?? process.getuid?.()) && (mode & 0o077) === 0
}

function own(path: string, user: ServerUser | undefined): void {
  chmodSync(path, 0o700)
  if (user !== undefined) chownSync(path, user.uid, user.gid)
}

/** Keeps one old log. A running server goes on writing to the file it has open. */
export function rotateLog({ logFile }: EmbeddedFolder): void {
  if (existsSync(logFile) && statSync(logFile).size > LOG_BYTES_MAX) renameSync(logFile, `${logFile}.1`)
}

/** The last lines that the server wrote. */
export function logTail({ logFile }: EmbeddedFolder): string {
  if (!existsSync(logFile)) return '(there is no log)'
  return readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-5).join('\n')
}
