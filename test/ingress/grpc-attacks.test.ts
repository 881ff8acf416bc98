import { afterAll, beforeAll, expect, test } from 'vitest'
import { type GrpcProcess, startGrpcProcess } from './grpc-process.ts'
import { asSuccess, beginCall, connectHttp2, framed, fullSuccess, type Session } from './grpc-serve.ts'
import {
  dataFrames,
  exportHeaders,
  FrameConnection,
  flags,
  frameOf,
  frameTypes,
  headerBlock,
  headerFrames,
  hpackInteger,
  hpackString,
  preface,
  settingsPayload,
} from './http2-frames.ts'
import { oneSpan, payload } from './serve.ts'

const MB = 1024 * 1024
const call = framed(oneSpan)
const empty = Buffer.alloc(0)
const windowUpdate = (stream: number, bytes: number) => {
  const increment = Buffer.alloc(4)
  increment.writeUInt32BE(bytes)
  return frameOf(frameTypes.windowUpdate, 0, stream, increment)
}

let listener: GrpcProcess
let honest: Session

beforeAll(async () => {
  listener = await startGrpcProcess()
  honest = await connectHttp2(listener.port)
  for (let count = 0; count < 200; count++) await beginCall(honest).reply
})
afterAll(async () => {
  await honest[Symbol.asyncDispose]()
  await listener[Symbol.asyncDispose]()
})

/**
 * Lets an attack run while an honest client sends a call after the other on its own connection: each must be OK within
 * five seconds. Answers by how much the memory of the listener has grown at its peak.
 */
async function underAttack(attack: () => Promise<void>): Promise<number> {
  const before = await listener.usage()
  const attacking = { over: false }
  const attacked = attack().finally(() => {
    attacking.over = true
  })
  // Whoever awaits it comes later.
  attacked.catch(() => undefined)
  let slowestMs = 0
  do {
    const startedMs = performance.now()
    expect(asSuccess(await beginCall(honest).reply)).toEqual(fullSuccess)
    slowestMs = Math.max(slowestMs, performance.now() - startedMs)
  } while (!attacking.over)
  await attacked
  expect(slowestMs).toBeLessThan(5000)
  const { peakRssBytes } = await listener.usage()
  await expect.poll(async () => (await listener.usage()).inflightBytes).toBe(0)
  return peakRssBytes - before.rssBytes
}

/** Sends until there is nothing left to send or the connection has been closed. */
async function flood(
  connection: FrameConnection,
  times: number,
  next: (round: number) => Buffer,
): Promise<void> {
  for (let round = 0; round < times && !connection.socket.destroyed; round++) {
    await connection.flush(next(round))
  }
}

test('10,000 header fields, and metadata of 10 MB in one block, are refused and cost next to nothing', async () => {
  const grown = await underAttack(async () => {
    for (const fields of [
      Array.from({ length: 10_000 }, (_, index) => [`x-${index}`, 'y'] as const),
      Array.from({ length: 10 }, (_, index) => [`x-${index}`, 'y'.repeat(MB)] as const),
    ]) {
      await using connection = new FrameConnection(listener.port)
      const frames = headerFrames(1, exportHeaders(...fields))
      await flood(connection, frames.length, (round) => frames[round] ?? empty)
      const reset = connection.until(({ type }) => type === frameTypes.rstStream)
      await Promise.race([reset.catch(() => undefined), connection.closed])
    }
  })
  expect(grown).toBeLessThan(20 * MB)
})

test('metadata of more than 8 kB, or more than 128 fields, end their call and not the connection', async () => {
  await underAttack(async () => {
    await using connection = new FrameConnection(listener.port)
    await connection.ping()
    const many = Array.from({ length: 200 }, (_, index) => [`x-${index}`, 'y'] as const)
    connection.write(...headerFrames(1, exportHeaders(['x-long', 'y'.repeat(9000)])))
    connection.write(...headerFrames(3, exportHeaders(...many)))
    const codes = [1, 3].map(async (id) => {
      const reset = await connection.until(
        ({ type, stream }) => type === frameTypes.rstStream && stream === id,
      )
      return reset.payload.readUInt32BE(0)
    })
    // ENHANCE_YOUR_CALM, which clients of gRPC take for RESOURCE_EXHAUSTED.
    expect(await Promise.all(codes)).toEqual([11, 11])
    // What is long and yet allowed is taken.
    for (const [id, length] of [
      [5, 0],
      [7, 7000],
    ] as const) {
      connection.write(...headerFrames(id, exportHeaders(['x-long', 'y'.repeat(length)])))
      connection.write(...dataFrames(id, call, true))
      await connection.until(({ type, stream }) => type === frameTypes.data && stream === id)
    }
  })
})

test('HPACK bombs: one stored field repeated 15,000 times in 100 calls on each of 10 connections', async () => {
  const grown = await underAttack(async () => {
    const stored = Buffer.concat([
      hpackInteger(0, 6, 0x40),
      hpackString('x-bomb'),
      hpackString('z'.repeat(3900)),
    ])
    const repeated = Buffer.alloc(15_000, hpackInteger(62, 7, 0x80))
    await Promise.all(
      Array.from({ length: 10 }, async () => {
        await using connection = new FrameConnection(listener.port)
        await flood(connection, 100, (round) =>
          frameOf(
            frameTypes.headers,
            flags.endHeaders | flags.endStream,
            2 * round + 1,
            Buffer.concat([exportHeaders(), round === 0 ? stored : repeated]),
          ),
        )
        await Promise.race([connection.ping(), connection.closed]).catch(() => undefined)
      }),
    )
  })
  expect(grown).toBeLessThan(60 * MB)
})

const floods: [string, (round: number) => Buffer][] = [
  ['SETTINGS', () => frameOf(frameTypes.settings, 0, 0, settingsPayload({ 4: 65_535, 3: 100 }))],
  [
    'SETTINGS of 2,700 entries',
    () => frameOf(frameTypes.settings, 0, 0, Buffer.alloc(6 * 2700, settingsPayload({ 4: 1000 }))),
  ],
  ['PING', () => frameOf(frameTypes.ping, 0, 0, Buffer.alloc(8))],
  ['WINDOW_UPDATE', () => windowUpdate(0, 1)],
  ['empty DATA', () => frameOf(frameTypes.data, 0, 1, empty)],
  ['PRIORITY', () => frameOf(2, 0, 3, Buffer.of(0, 0, 0, 0, 1))],
  ['frames of unknown types', () => frameOf(0x7f, 0, 0, Buffer.alloc(16_000))],
  ['RST_STREAM of an idle stream', () => frameOf(frameTypes.rstStream, 0, 99_999, Buffer.alloc(4))],
]
test.each(floods)(
  'a flood of 100,000 frames of %s leaves the memory and the others alone',
  async (_, frame) => {
    const grown = await underAttack(async () => {
      await using connection = new FrameConnection(listener.port)
      connection.beginExport(1)
      // Nothing is read, so what is answered stays with the listener.
      connection.socket.pause()
      const hundred = Buffer.concat(Array.from({ length: 100 }, (_unused, index) => frame(index)))
      await Promise.race([
        flood(connection, 1000, () => hundred),
        // A listener that does not read on has bounded it as well.
        new Promise((resolve) => setTimeout(resolve, 3000)),
      ])
    })
    expect(grown).toBeLessThan(60 * MB)
  },
)

test('a flood of CONTINUATION that never ends ends its connection', async () => {
  const grown = await underAttack(async () => {
    await using connection = new FrameConnection(listener.port)
    await connection.flush(frameOf(frameTypes.headers, 0, 1, exportHeaders()))
    await flood(connection, 10_000, () => frameOf(frameTypes.continuation, 0, 1, headerBlock([['x', 'y']])))
    await connection.closed
  })
  expect(grown).toBeLessThan(20 * MB)
})

test('a stream that sends on after its message ends with an answer, however much comes', async () => {
  const grown = await underAttack(async () => {
    await using connection = new FrameConnection(listener.port)
    connection.beginExport(1, call, { end: false })
    await flood(connection, 2000, () => Buffer.concat(dataFrames(1, Buffer.alloc(16_000), false)))
    await connection.until(({ type, stream }) => type === frameTypes.headers && stream === 1)
  })
  expect(grown).toBeLessThan(60 * MB)
})

test('windows of 0: 100 connections of 100 calls whose answers are never read', async () => {
  const connections: FrameConnection[] = []
  const grown = await underAttack(async () => {
    for (let count = 0; count < 100; count++) {
      const connection = new FrameConnection(listener.port, { begin: false })
      connections.push(connection)
      const calls = Array.from({ length: 100 }, (_, index) => [
        frameOf(frameTypes.headers, flags.endHeaders, 2 * index + 1, exportHeaders()),
        ...dataFrames(2 * index + 1, call, true),
      ])
      await connection.flush(
        preface,
        frameOf(frameTypes.settings, 0, 0, settingsPayload({ 4: 0 })),
        ...calls.flat(),
      )
    }
  })
  expect(grown).toBeLessThan(150 * MB)
  // Whoever comes later is served too.
  await using later = await connectHttp2(listener.port)
  expect(asSuccess(await beginCall(later).reply)).toEqual(fullSuccess)
  for (const connection of connections) await connection[Symbol.asyncDispose]()
})

test('a client that asks reflection without reading the answers is not answered without end', async () => {
  const grown = await underAttack(async () => {
    await using connection = new FrameConnection(listener.port, { begin: false })
    const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo'
    const symbol = 'opentelemetry.proto.collector.metrics.v1.MetricsService'
    const question = framed(Buffer.concat([Buffer.of(0x22, symbol.length), Buffer.from(symbol)]))
    const asking = headerBlock([
      [':method', 'POST'],
      [':scheme', 'http'],
      [':path', path],
      [':authority', 'localhost'],
      ['content-type', 'application/grpc'],
    ])
    connection.write(preface, frameOf(frameTypes.settings, 0, 0, settingsPayload({ 4: 0 })))
    await connection.ping('window')
    connection.write(frameOf(frameTypes.headers, flags.endHeaders, 1, asking))
    const many = Buffer.concat(Array.from({ length: 200 }, () => question))
    await flood(connection, 60, () => Buffer.concat(dataFrames(1, many, false)))
    await connection.ping()
  })
  expect(grown).toBeLessThan(40 * MB)
})

test('streams left open, half sent and idle, on 20 connections go with their connections', async () => {
  const body = framed(payload('js-traces.pb'))
  const grown = await underAttack(async () => {
    const connections = Array.from({ length: 20 }, () => new FrameConnection(listener.port))
    for (const connection of connections) {
      for (let index = 0; index < 100; index++) {
        connection.beginExport(2 * index + 1, body.subarray(0, index * 20), { end: false })
      }
      await connection.ping()
    }
    for (const connection of connections) await connection[Symbol.asyncDispose]()
  })
  expect(grown).toBeLessThan(80 * MB)
})
