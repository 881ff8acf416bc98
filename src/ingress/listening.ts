import cluster from 'node:cluster'
import { once } from 'node:events'
import { lstat, rm, stat } from 'node:fs/promises'
import { type AddressInfo, connect, type ListenOptions, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Clock } from '../foundation/clock.ts'
import { Failure, invariant } from '../foundation/failure.ts'

/** Where a server listens. */
export interface ListeningAddress {
  readonly host: string
  readonly port: number
}

/**
 * Resolves when `server` listens for `what`. An error after that, such as a connection that could not be accepted for
 * want of a file descriptor, goes to `onError` and ends nothing.
 *
 * @throws Failure `configuration` when the address cannot be had.
 */
export function listen(
  server: Server,
  what: string,
  { host, port }: ListeningAddress,
  onError: (error: Error) => void,
): Promise<void> {
  return listenAt(server, what, `${host}:${port}`, { host, port }, onError)
}

/**
 * The same on the Unix socket of `HTTP_SOCKET`. The socket of a process that is gone is replaced; one that somebody
 * listens on, and a file that is no socket, are left alone. Who may connect is decided by the folder and the umask:
 * connecting takes the right to write to the socket. Closing the server removes it.
 *
 * @throws Failure `configuration` when the path cannot be had.
 */
export async function listenOnSocket(
  server: Server,
  what: string,
  path: string,
  onError: (error: Error) => void,
): Promise<void> {
  // Of several processes that share a socket, none may take it for an abandoned one.
  if (!cluster.isWorker) await clearSocket(what, path)
  await listenAt(server, what, `HTTP_SOCKET=${path}`, { path }, onError)
}

/**
 * Removes the socket of a process that is gone.
 *
 * @throws Failure `configuration` when something else is there.
 */
export async function clearSocket(what: string, path: string): Promise<void> {
  await clearSocketPath(path).catch((cause: NodeJS.ErrnoException) => {
    throw cannotListen(what, `HTTP_SOCKET=${path}`, cause)
  })
}

function listenAt(
  server: Server,
  what: string,
  where: string,
  options: ListenOptions,
  onError: (error: Error) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.on('error', (cause: NodeJS.ErrnoException) => {
      if (server.listening) return onError(cause)
      reject(cannotListen(what, where, cause))
    })
    server.listen(options, resolve)
  })
}

function cannotListen(what: string, where: string, cause: NodeJS.ErrnoException): Failure {
  const message = `cannot listen for ${what} on ${where}: ${cause.message}`
  return new Failure('configuration', message, { cause, ...(cause.code && { code: cause.code }) })
}

/** @throws Error that says what else stands in the way. */
async function clearSocketPath(path: string): Promise<void> {
  const stats = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  // Of a folder that is not there, listening would say that it may not be written to.
  if (stats === undefined) return void (await stat(dirname(path)))
  if (!stats.isSocket()) throw new Error('there is a file that is no socket, and it is left alone')
  if (!(await isAbandoned(path))) throw new Error('another process listens on it')
  await rm(path, { force: true })
}

/** Whether nobody listens on a socket. */
async function isAbandoned(path: string): Promise<boolean> {
  const probe = connect({ path })
  try {
    await once(probe, 'connect')
    return false
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ECONNREFUSED') return true
    throw error
  } finally {
    probe.destroy()
  }
}

/**
 * Closes connections beyond so many as soon as they come, and emits `drop`. Of several processes under `node:cluster` a full one
 * would hand each on to the next, which, when all are full, never ends.
 */
export function dropBeyondMax(server: Server, connections: number): void {
  // Known since Node.js 23.1, not yet to its types.
  Object.assign(server, { maxConnections: connections, dropMaxConnection: true })
}

/** Where `server` listens; the port that it got if it asked for any. */
export function addressOf(server: Server | undefined): ListeningAddress {
  const address = server?.address() as AddressInfo | null | undefined
  invariant(address, 'the server is not listening')
  return { host: address.address, port: address.port }
}

/** How long connections that say nothing are left open after the last answer. */
export const CLOSING_MS = 1_000

/**
 * Stops listening and closes idle connections; resolves when none is left. A connection that was opened and has said
 * nothing yet, as browsers open them in advance, is not idle to Node and would be waited for until its head is
 * overdue, so after `CLOSING_MS`, or when `giveUp` aborts, `cut` ends what is left.
 */
export async function closeServer(
  server: Server,
  clock: Clock,
  giveUp: AbortSignal,
  cut: () => void,
): Promise<void> {
  const closed = new AbortController()
  const closing = new Promise<void>((resolve) => {
    server.close(() => {
      closed.abort()
      resolve()
    })
  })
  await clock.sleep(CLOSING_MS, AbortSignal.any([giveUp, closed.signal]))
  cut()
  await closing
}

/** How long a refused connection is read on, so that the answer is not taken away by a reset. */
const LINGER_MS = 1_000

/** Sends the last bytes of a connection whose client may still send, and ends it (RFC 9112, section 9.6). */
export function endSocket(socket: Socket, lastBytes: Buffer, clock: Clock): void {
  socket.on('error', () => socket.destroy())
  socket.end(lastBytes)
  socket.resume()
  clock.deadline(LINGER_MS).addEventListener('abort', () => socket.destroy())
}
