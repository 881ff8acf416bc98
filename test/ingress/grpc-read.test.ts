import { EventEmitter } from 'node:events'
import type { ServerHttp2Stream } from 'node:http2'
import { expect, test } from 'vitest'
import { ByteBudget } from '../../src/foundation/byte-budget.ts'
import { PREFIX_BYTES } from '../../src/ingress/grpc-framing.ts'
import { readCall } from '../../src/ingress/grpc-read.ts'
import { Reservation } from '../../src/ingress/reservation.ts'

test('to break off the reading of a call that has come whole changes nothing', async () => {
  const messageBytes = 300_000
  const call = Buffer.alloc(PREFIX_BYTES + messageBytes, 7)
  call[0] = 0
  call.writeUInt32BE(messageBytes, 1)
  const stream = new EventEmitter()
  const reservation = new Reservation(new ByteBudget(10_000_000))
  const reading = readCall(stream as ServerHttp2Stream, { limitBytes: 1_000_000, reservation })
  for (const at of [0, 100_000, 200_000]) stream.emit('data', Buffer.from(call.subarray(at, at + 100_000)))
  stream.emit('data', Buffer.from(call.subarray(300_000)))
  stream.emit('end')
  reading.breakOff('cut_off')
  expect(call.equals((await reading.body) as Buffer)).toBe(true)
})
