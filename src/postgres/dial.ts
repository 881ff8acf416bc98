import { readFileSync } from 'node:fs'
import { connect, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { coerceError, Failure } from '../foundation/failure.ts'
import type { DatabaseLocation, TlsLocation } from './location.ts'

const KEEPALIVE_IDLE_MS = 10_000
/** PostgreSQL documentation, 54.7 "Message Formats", SSLRequest. */
const sslRequest = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])

/**
 * A connected socket to the server, with TLS where the location asks for it. Small writes leave at once: without
 * TCP_NODELAY a COPY waits 40 ms for an acknowledgement.
 *
 * @throws the socket's error, CONNECT_TIMEOUT when `deadline` aborts first, or a Failure `configuration` when the
 * server has no TLS though `sslmode` demands it.
 */
export async function dial(location: DatabaseLocation, deadline: AbortSignal): Promise<Socket> {
  const { host, port, tls } = location
  const socket = host.startsWith('/')
    ? connect({ path: `${host}/.s.PGSQL.${port}` })
    : connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEPALIVE_IDLE_MS })
  // Whoever waits for the socket hears of its errors by `arrival`; between two waits nobody does.
  socket.on('error', () => undefined)
  try {
    await arrival(socket, 'connect', deadline)
    if (tls.mode === 'disable') return socket
    return await encrypt(socket, location, deadline)
  } catch (thrown) {
    socket.destroy()
    throw thrown
  }
}

async function encrypt(
  socket: Socket,
  { host, tls }: DatabaseLocation,
  deadline: AbortSignal,
): Promise<Socket> {
  const answered = arrival<Buffer>(socket, 'data', deadline)
  socket.write(sslRequest)
  const answer = await answered
  socket.pause()
  socket.removeAllListeners('data')
  // More than the one byte would be plain text that somebody slipped in before the encryption.
  if (answer.length !== 1)
    throw codedError('ECONNRESET', 'the server answered the TLS request with more than a byte')
  if (answer[0] !== 'S'.charCodeAt(0)) {
    // The server says nothing more until it is spoken to, so nothing flows away before somebody listens.
    if (tls.mode === 'prefer') return socket.resume()
    throw new Failure('configuration', `The database server has no TLS, and sslmode=${tls.mode} demands it.`)
  }
  const secure = connectTls({
    ...tlsOptions(tls),
    socket,
    host,
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ALPNProtocols: ['postgresql'],
  })
  secure.on('error', () => undefined)
  socket.on('error', (error) => secure.destroy(error))
  await arrival(secure, 'secureConnect', deadline)
  return secure
}

/** What `sslmode` means (PostgreSQL documentation, 32.19.1 "Client Verification of Server Certificates"). */
function tlsOptions({ mode, rootCertificate, certificate, key }: TlsLocation): ConnectionOptions {
  const ownAuthority = rootCertificate !== undefined && rootCertificate !== 'system'
  const verifiesChain = mode === 'verify-ca' || mode === 'verify-full' || (mode === 'require' && ownAuthority)
  return {
    rejectUnauthorized: verifiesChain,
    ...(mode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
    ...(ownAuthority ? { ca: pem('sslrootcert', rootCertificate) } : {}),
    ...(certificate === undefined ? {} : { cert: pem('sslcert', certificate) }),
    ...(key === undefined ? {} : { key: pem('sslkey', key) }),
  }
}

function pem(parameter: string, path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    const { message } = coerceError(cause)
    throw new Failure(
      'configuration',
      `The file of ${parameter} in DATABASE_URL cannot be read: ${message}`,
      { cause },
    )
  }
}

/** Resolves with the event's first argument; rejects when the socket fails, closes, or `deadline` aborts first. */
function arrival<T = unknown>(socket: Socket, event: string, deadline: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const arrived = (value: T) => settle(() => resolve(value))
    const failed = (error: Error) => settle(() => reject(error))
    const closed = () => failed(codedError('CONNECTION_CLOSED', 'the server closed the connection'))
    const late = () => failed(codedError('CONNECT_TIMEOUT', 'the connection was not made in time'))
    const settle = (finish: () => void) => {
      socket.off(event, arrived).off('error', failed).off('close', closed)
      deadline.removeEventListener('abort', late)
      finish()
    }
    socket.once(event, arrived).once('error', failed).once('close', closed)
    deadline.addEventListener('abort', late)
    if (deadline.aborted) late()
  })
}

/** An error that `classifyPostgresError` knows by its code. */
export function codedError(code: string, message: string): Error {
  return Object.assign(new Error(message), { code })
}
