import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { coerceError, type Failure } from '../foundation/failure.ts'
import { codedError } from './dial.ts'
import { MessageFrames } from './message-frames.ts'

const PROTOCOL_VERSION = 0x0003_0000
/** Length of a CancelRequest (PostgreSQL documentation, 54.7 "Message Formats"). */
const CANCEL_REQUEST_BYTES = 16
/** An error message is at most this long in practice; longer chunks are rows. */
const ERROR_BYTES_MAX = 2048
const readOnlyCode = Buffer.from('\0C25006\0')
const fatalSeverity = Buffer.from('\0VFATAL\0')

const type = (letter: string) => letter.charCodeAt(0)
const ROW = type('D')
const ERROR = type('E')
const NOTICE = type('N')
const PARAMETER = type('S')
const READY = type('Z')
const AUTHENTICATION = type('R')
/** Requests for authentication that postgres.js answers; it says nothing to others, and waits. */
const authentications = new Set([0, 3, 5, 10, 11, 12])
const SASL_CONTINUE = 11
/** The server's first message (RFC 5802, section 7). As many iterations as have seven digits take 4 s. */
const challenge = /^r=[^,]+,s=[A-Za-z0-9+/]+={0,2},i=[1-9]\d{0,6}$/

export interface SessionOptions {
  /** What the startup message says: user, database, application_name. */
  startup: Readonly<Record<string, string>>
  /** Run on the new session before anything else; its last row is handed to `verify`. */
  setup: string
  /** Answers what is wrong with the row, or undefined. */
  verify: (row: readonly (string | null)[]) => Failure | undefined
  /** Aborts when the session took too long to be ready. */
  deadline: AbortSignal
  onReady: () => void
  onClose: () => void
}

export interface Session {
  /** Ends the session: what runs on it fails with `reason`, and no statement reaches it any more. */
  end(reason: Error): void
}

/**
 * Stands between a connected socket and postgres.js, which calls nobody when a connection is new and loses queries
 * when one ends at a bad moment: with backends killed every 20 ms it left 7 of 3,400 queries pending for ever and had
 * 25 wait for connections that never sent a byte. The socket is changed in place, so that nothing is copied.
 *
 * **Maintained invariants**
 * - postgres.js sees the server ready only after `setup` ran on this very session and `verify` was content.
 * - `error` and `close` come in one go, as soon as the end is known, and `close` never without `error`. In between,
 *   postgres.js would put queries on the dead connection that nobody ever settles; and a connection that closes before
 *   it was ready, without an error, it opens again and again while its query waits (connection.js, `closed`, `error`).
 * - The first bytes on the wire are our startup message. A connection that closed while a write was pending keeps
 *   that write, and the timer that would have sent it, for its next socket. `startupPadding` makes postgres.js flush
 *   at once in spite of it, and whatever it flushes is replaced.
 * - The server's last words, a FATAL error, end the session with that error. postgres.js would tell the query no more
 *   than that the connection is closed, and keep the error for the first query of its next connection.
 * - A session that brings what is no message of the protocol is ended at once, as a connection that broke.
 * - A session whose server refused a write as read-only is ended, so that the next one finds the new primary.
 */
export function guardSession(socket: Socket, options: SessionOptions): Session {
  const emit = socket.emit.bind(socket) as (event: string | symbol, ...values: unknown[]) => boolean
  const write = socket.write.bind(socket)
  const { deadline } = options
  let isOver = false
  let cancels = false
  let refusesWrites = false
  const frames = new MessageFrames()

  const end = (reason: Error) => {
    if (isOver) return
    isOver = true
    deadline.removeEventListener('abort', late)
    options.onClose()
    // Nobody hears how a request to cancel went.
    if (!cancels) emit('error', reason)
    emit('close', !cancels)
    socket.destroy()
  }
  const late = () => end(codedError('CONNECT_TIMEOUT', 'the database did not begin the session in time'))
  // Not before postgres.js listens.
  if (deadline.aborted) setImmediate(late)
  else deadline.addEventListener('abort', late)

  let reader: SetupReader | undefined = new SetupReader(options, {
    forward: (message) => emit('data', message),
    send: (message) => write(message),
    ready: () => {
      reader = undefined
      deadline.removeEventListener('abort', late)
    },
    refuse: end,
  })

  socket.write = ((chunk: Buffer) => {
    socket.write = write
    cancels = chunk.length === CANCEL_REQUEST_BYTES
    return write(cancels ? chunk : startupMessage(options.startup))
  }) as Socket['write']

  socket.emit = ((event: string | symbol, ...values: unknown[]) => {
    switch (event) {
      case 'data': {
        const chunk = values[0] as Buffer
        if (isOver) return false
        if (!frames.follow(chunk)) {
          end(garbled())
          return true
        }
        if (reader !== undefined) {
          reader.read(chunk)
          return true
        }
        if (chunk.length > ERROR_BYTES_MAX) return emit(event, chunk)
        if (chunk.includes(fatalSeverity)) {
          const { before, fatal } = splitFatal(chunk)
          if (before.length > 0) emit(event, before)
          if (fatal !== undefined) end(serverError(fatal))
          return true
        }
        refusesWrites ||= chunk.includes(readOnlyCode)
        const seen = emit(event, chunk)
        // postgres.js tells the query when the server is ready again. Its caller must not be able to send the next one.
        if (refusesWrites && chunk.at(-6) === READY) {
          process.nextTick(end, codedError('CONNECTION_DESTROYED', 'the server takes no writes'))
        }
        return seen
      }
      case 'error':
        end(coerceError(values[0]))
        return true
      case 'end':
      case 'close':
        end(codedError('CONNECTION_CLOSED', 'the server closed the connection'))
        return true
      default:
        return emit(event, ...values)
    }
  }) as Socket['emit']
  return { end }
}

/** Added to the startup parameters that postgres.js is given; it never reaches the wire. */
export const startupPadding = 'x'.repeat(1024)

/** A socket that fails with `reason` as soon as it is written to: postgres.js cannot bear one that was never made. */
export function failedSocket(reason: unknown): Socket {
  const failed = new Duplex({
    read: () => undefined,
    write(chunk: Buffer, _encoding, done) {
      // A request to cancel has nobody who would hear of its failure.
      if (chunk.length === CANCEL_REQUEST_BYTES) this.destroy()
      else done(coerceError(reason))
    },
  })
  const emit = failed.emit.bind(failed) as (event: string | symbol, ...values: unknown[]) => boolean
  // As net.Socket does after an error; postgres.js waits longer before it tries again.
  failed.emit = ((event: string | symbol, ...values: unknown[]) =>
    event === 'close' ? emit(event, true) : emit(event, ...values)) as Duplex['emit']
  return failed as Socket
}

interface SetupActions {
  forward: (message: Buffer) => void
  send: (message: Buffer) => void
  ready: () => void
  refuse: (failure: Error) => void
}

/**
 * Reads a new session's messages up to the end of `setup`. Warnings among them are about the database, such as another
 * version of its collation, and not about a statement of ours; whoever listens for those must not hear them.
 */
class SetupReader {
  readonly #options: SessionOptions
  readonly #actions: SetupActions
  #pending: Buffer = Buffer.alloc(0)
  #settingUp = false
  #row: (string | null)[] = []
  #over = false
  #isReady = false

  constructor(options: SessionOptions, actions: SetupActions) {
    this.#options = options
    this.#actions = actions
  }

  read(chunk: Buffer): void {
    let rest = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    while (!this.#over && rest.length >= 5) {
      const length = 1 + rest.readUInt32BE(1)
      if (rest.length < length) break
      const message = rest.subarray(0, length)
      rest = rest.subarray(length)
      if (this.#settingUp) this.#readSetup(message)
      else this.#readStartup(message)
    }
    if (!this.#over) this.#pending = Buffer.from(rest)
    else if (this.#isReady && rest.length > 0) this.#actions.forward(rest)
  }

  #readStartup(message: Buffer): void {
    if (message[0] === READY) {
      this.#settingUp = true
      this.#actions.send(queryMessage(this.#options.setup))
      return
    }
    if (message[0] === AUTHENTICATION && !authentications.has(authenticationOf(message))) {
      this.#over = true
      const asked = authenticationOf(message)
      this.#actions.refuse(
        codedError('ECONNRESET', `the server asks for an authentication (${asked}) that is not known here`),
      )
      return
    }
    if (
      message[0] === AUTHENTICATION &&
      authenticationOf(message) === SASL_CONTINUE &&
      !isChallenge(message)
    ) {
      this.#over = true
      this.#actions.refuse(garbled())
      return
    }
    if (message[0] !== NOTICE) this.#actions.forward(message)
  }

  #readSetup(message: Buffer): void {
    switch (message[0]) {
      case ROW: {
        const row = columnsOf(message)
        if (row !== undefined) {
          this.#row = row
          break
        }
        this.#over = true
        this.#actions.refuse(garbled())
        break
      }
      case PARAMETER:
        this.#actions.forward(message)
        break
      case ERROR:
        this.#over = true
        this.#actions.refuse(serverError(message))
        break
      case READY: {
        this.#over = true
        const failure = this.#options.verify(this.#row)
        if (failure !== undefined) {
          this.#actions.refuse(failure)
          break
        }
        this.#actions.ready()
        this.#isReady = true
        this.#options.onReady()
        this.#actions.forward(message)
      }
    }
  }
}

/** A chunk before and from its FATAL error on; the error is the last message that a session sends. */
function splitFatal(chunk: Buffer): { before: Buffer; fatal: Buffer | undefined } {
  for (let at = 0; at + 5 <= chunk.length; at += 1 + chunk.readUInt32BE(at + 1)) {
    const message = chunk.subarray(at, at + 1 + chunk.readUInt32BE(at + 1))
    if (message[0] === ERROR && message.includes(fatalSeverity))
      return { before: chunk.subarray(0, at), fatal: message }
  }
  return { before: chunk, fatal: undefined }
}

function startupMessage(parameters: Readonly<Record<string, string>>): Buffer {
  const text = Object.entries(parameters)
    .map(([name, value]) => `${name}\0${value}\0`)
    .join('')
  const message = Buffer.alloc(8 + Buffer.byteLength(text) + 1)
  message.writeUInt32BE(message.length, 0)
  message.writeUInt32BE(PROTOCOL_VERSION, 4)
  message.write(text, 8)
  return message
}

function queryMessage(text: string): Buffer {
  const message = Buffer.alloc(5 + Buffer.byteLength(text) + 1)
  message[0] = type('Q')
  message.writeUInt32BE(message.length - 1, 1)
  message.write(text, 5)
  return message
}

/** Undefined when the lengths in the message do not fit it. */
function columnsOf(message: Buffer): (string | null)[] | undefined {
  const columns: (string | null)[] = []
  let at = 7
  if (message.length < at) return undefined
  for (let left = message.readUInt16BE(5); left > 0; left--) {
    if (at + 4 > message.length) return undefined
    const length = message.readInt32BE(at)
    at += 4
    if (at + length > message.length) return undefined
    columns.push(length < 0 ? null : message.toString('utf8', at, at + length))
    at += Math.max(length, 0)
  }
  return columns
}

function authenticationOf(message: Buffer): number {
  return message.length < 9 ? -1 : message.readInt32BE(5)
}

/** postgres.js computes with whatever stands there, and what that throws is caught by nobody. */
function isChallenge(message: Buffer): boolean {
  return challenge.test(message.toString('latin1', 9))
}

function garbled(): Error {
  return codedError('ECONNRESET', 'the server sent what is no message of PostgreSQL')
}

/** The fields that `classifyPostgresError` reads, of an ErrorResponse. */
function serverError(message: Buffer): Error {
  const fields = new Map(
    message
      .toString('utf8', 5)
      .split('\0')
      .map((field) => [field[0] ?? '', field.slice(1)]),
  )
  return Object.assign(new Error(fields.get('M')), { code: fields.get('C'), severity: fields.get('V') })
}
