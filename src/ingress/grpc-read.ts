import type { ServerHttp2Stream } from 'node:http2'
import { BodyBuffer } from './body-buffer.ts'
import { declaredCallBytes, PREFIX_BYTES } from './grpc-framing.ts'
import type { Reservation } from './reservation.ts'

/**
 * Why a call could not be read.
 * - `too_large`: its message says that it is larger than the limit.
 * - `no_room`: the bytes of all requests in flight are used up.
 * - `too_late`: it had not come whole when the time was over that its client gave it.
 * - `too_slow`: it had not come whole when the time was over that everybody is given.
 * - `cut_off`: the listener is about to stop.
 * - `gone`: the client went away before the last byte.
 */
export type CallFault = 'too_large' | 'no_room' | 'gone' | BrokenOff

/** Those of them that come from outside of the call. */
export type BrokenOff = 'too_late' | 'too_slow' | 'cut_off'

/** The reading of one call, which others may end. */
export interface CallReading {
  readonly body: Promise<Buffer | CallFault>
  /** Ends the reading, if it still goes on. */
  breakOff(fault: BrokenOff): void
}

/**
 * Reads the body of a unary call, holding in memory what `reservation` could take and no more. A message that says that it is
 * over `limitBytes`, or over what is free, is refused when its prefix has come. What follows the first message is not
 * kept beyond one read of the socket: one byte of it makes the call wrong.
 *
 * `body` never rejects. After a fault the rest is left unread.
 */
export function readCall(
  stream: ServerHttp2Stream,
  limits: { limitBytes: number; reservation: Reservation },
): CallReading {
  const { limitBytes, reservation } = limits
  const { promise, resolve } = Promise.withResolvers<Buffer | CallFault>()
  const body = new BodyBuffer(reservation, PREFIX_BYTES + limitBytes)
  let declaredBytes: number | undefined

  const onData = (chunk: Buffer) => {
    if (!body.add(chunk)) return settle('no_room')
    if (declaredBytes === undefined) {
      declaredBytes = declaredCallBytes(body.bytes)
      if (declaredBytes === undefined) return
      if (declaredBytes > PREFIX_BYTES + limitBytes) return settle('too_large')
      if (declaredBytes - body.length > reservation.freeBytes) return settle('no_room')
      body.mostBytes = declaredBytes
    }
    if (body.length > declaredBytes) settle(body.bytes)
  }
  const onEnd = () => settle(body.bytes)
  const onClose = () => settle('gone')
  let isSettled = false
  const settle = (result: Buffer | CallFault) => {
    if (isSettled) return
    isSettled = true
    stream.off('data', onData)
    stream.off('end', onEnd)
    stream.off('close', onClose)
    stream.off('aborted', onClose)
    if (typeof result === 'string') body.discard()
    resolve(result)
  }

  stream.on('data', onData)
  stream.on('end', onEnd)
  stream.on('aborted', onClose)
  stream.on('close', onClose)
  return { body: promise, breakOff: settle }
}
