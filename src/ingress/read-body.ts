import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { ByteBudget } from '../foundation/byte-budget.ts'

/** The bytes of the in-flight budget that one request holds, given back together when its outcome is certain. */
export class Reservation {
  readonly #budget: ByteBudget
  #bytes = 0

  constructor(budget: ByteBudget) {
    this.#budget = budget
  }

  /** Takes `bytes` more, or takes nothing and answers false. */
  take(bytes: number): boolean {
    if (!this.#budget.tryTake(bytes)) return false
    this.#bytes += bytes
    return true
  }

  /** What could be taken now. */
  get freeBytes(): number {
    return this.#budget.freeBytes
  }

  /** Gives back all that is held. Calling it again gives back nothing. */
  release(): void {
    this.#budget.giveBack(this.#bytes)
    this.#bytes = 0
  }
}

/**
 * Why a body could not be read.
 * - `too_large`: more bytes than the limit, declared or come.
 * - `no_room`: the bytes of all requests in flight are used up.
 * - `bad_framing`: the chunks of a chunked body are not what HTTP says.
 * - `cut_off`: whoever runs the listener had no more patience.
 * - `gone`: the client went away before the last byte.
 */
export type BodyFault = 'too_large' | 'no_room' | 'bad_framing' | 'cut_off' | 'gone'

/** Buffers double from here. One read of a socket brings at most this much, so most bodies come whole. */
const FIRST_GROWTH_BYTES = 64 * 1024

const nothing = Buffer.alloc(0)

/** How to break off the reading of a body that has not come whole, by connection. */
const readings = new WeakMap<Socket, (fault: BodyFault) => void>()

/** The length that a request declares; undefined when its body comes in chunks. */
export function declaredLength(incoming: IncomingMessage): number | undefined {
  if (incoming.headers['transfer-encoding'] !== undefined) return undefined
  const header = incoming.headers['content-length']
  return header === undefined ? 0 : Number(header)
}

/**
 * Reads a whole body, holding in memory what `reservation` could take and no more. A declared length over
 * `limitBytes`, or over what is free, is refused before a byte is read; a body in chunks is counted as it comes. A body that comes in one
 * piece is not copied; a larger one is gathered in a buffer that doubles, up to its declared length.
 *
 * Never rejects. After a fault the rest of the body is left unread.
 */
export function readBody(
  incoming: IncomingMessage,
  limits: { limitBytes: number; reservation: Reservation },
): Promise<Buffer | BodyFault> {
  const { limitBytes, reservation } = limits
  const declared = declaredLength(incoming)
  if (declared !== undefined && declared > limitBytes) return Promise.resolve('too_large')
  if (declared !== undefined && declared > reservation.freeBytes) return Promise.resolve('no_room')
  return new Promise((resolve) => {
    const { socket } = incoming
    const mostBytes = declared ?? limitBytes
    let body: Buffer = nothing
    let usedBytes = 0

    const onData = (chunk: Buffer) => {
      const neededBytes = usedBytes + chunk.length
      if (neededBytes > limitBytes) return settle('too_large')
      if (usedBytes === 0) {
        if (!reservation.take(chunk.length)) return settle('no_room')
        body = chunk
      } else {
        if (neededBytes > body.length) {
          const grownBytes = Math.min(mostBytes, Math.max(neededBytes, 2 * body.length, FIRST_GROWTH_BYTES))
          if (!reservation.take(grownBytes - body.length)) return settle('no_room')
          const grown = Buffer.allocUnsafeSlow(grownBytes)
          body.copy(grown, 0, 0, usedBytes)
          body = grown
        }
        chunk.copy(body, usedBytes)
      }
      usedBytes = neededBytes
    }
    const onEnd = () => settle(usedBytes === body.length ? body : body.subarray(0, usedBytes))
    const onClose = () => settle('gone')
    const settle = (result: Buffer | BodyFault) => {
      incoming.off('data', onData)
      incoming.off('end', onEnd)
      incoming.off('close', onClose)
      readings.delete(socket)
      resolve(result)
    }

    readings.set(socket, (fault) => {
      // What is no HTTP behind a declared length is not this body's.
      if (fault !== 'bad_framing' || declared === undefined) settle(fault)
    })
    incoming.on('data', onData)
    incoming.on('end', onEnd)
    incoming.on('close', onClose)
    // An abort is told by `close`; without a listener it would be thrown.
    incoming.on('error', ignore)
  })
}

function ignore(): void {
  // Every way in which a request ends badly also closes it.
}

/** Ends the reading on this connection with `fault`, if there is one that it concerns. */
export function breakOffReading(socket: Socket, fault: 'bad_framing' | 'cut_off'): void {
  readings.get(socket)?.(fault)
}
