import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { BodyBuffer } from './body-buffer.ts'
import type { Reservation } from './reservation.ts'

/**
 * Why a body could not be read.
 * - `too_large`: more bytes than the limit, declared or come.
 * - `no_room`: the bytes of all requests in flight are used up.
 * - `bad_framing`: the chunks of a chunked body are not what HTTP says.
 * - `cut_short`: the client ended its side of the connection before the last byte.
 * - `too_slow`: the last byte did not come in time.
 * - `cut_off`: the listener is about to stop.
 * - `gone`: the client went away before the last byte.
 */
export type BodyFault = 'too_large' | 'no_room' | 'gone' | BrokenOff

/** Those of them that come from outside of the request. */
export type BrokenOff = 'bad_framing' | 'cut_short' | 'too_slow' | 'cut_off'

/** How to break off the reading of a body that has not come whole, by connection. */
const readings = new WeakMap<Socket, (fault: BrokenOff) => void>()

/** The length that a request declares; undefined when its body comes in chunks. */
export function declaredLength(incoming: IncomingMessage): number | undefined {
  if (incoming.headers['transfer-encoding'] !== undefined) return undefined
  const header = incoming.headers['content-length']
  return header === undefined ? 0 : Number(header)
}

/**
 * Reads a whole body, holding in memory what `reservation` could take and no more. A declared length over
 * `limitBytes`, or over what is free, is refused before a byte is read; a body in chunks is counted as it comes.
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
    const body = new BodyBuffer(reservation, declared ?? limitBytes)

    const onData = (chunk: Buffer) => {
      if (body.length + chunk.length > limitBytes) settle('too_large')
      else if (!body.add(chunk)) settle('no_room')
    }
    const onEnd = () => settle(body.bytes)
    const onClose = () => settle('gone')
    const settle = (result: Buffer | BodyFault) => {
      incoming.off('data', onData)
      incoming.off('end', onEnd)
      incoming.off('close', onClose)
      // Of requests that came in one piece the next may be read before this one hears of its end.
      if (readings.get(socket) === breakOff) readings.delete(socket)
      if (typeof result === 'string') body.discard()
      resolve(result)
    }

    const breakOff = (fault: BrokenOff) => {
      // What is no HTTP behind a declared length is not this body's.
      if (fault !== 'bad_framing' || declared === undefined) settle(fault)
    }
    readings.set(socket, breakOff)
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

/** Ends the reading on this connection with `fault`; false if nothing is being read there. */
export function breakOffReading(socket: Socket, fault: BrokenOff): boolean {
  const breakOff = readings.get(socket)
  breakOff?.(fault)
  return breakOff !== undefined
}
