/**
 * Compares our gRPC listener with one of grpc-js that hands the same bytes to the same `ExportPath`, each in a process of
 * its own with a queue that takes everything at once: CPU time of a call, and memory with large messages. The figures of
 * docs/decisions/0015 come from here.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { type Listener, startGrpcProcess } from '../../test/ingress/grpc-process.ts'
import {
  beginCall,
  connectHttp2,
  framed,
  type GrpcRequest,
  type Session,
} from '../../test/ingress/grpc-serve.ts'
import { spanOfBytes } from '../../test/ingress/serve.ts'
import { renderTable } from '../report.ts'

const connections = 4
const callsAtOnce = 16
const calls = 20_000
const warmUpCalls = 4_000
const rounds = 3
const listeners: readonly Listener[] = ['ours', 'grpc-js']

const traces = readFileSync(path.join(import.meta.dirname, '../../test/payloads/js-traces.pb'))
const bodies: [name: string, request: GrpcRequest][] = [
  ['1 kB', { body: framed(spanOfBytes(1000)) }],
  ['100 spans, 20 kB', { body: framed(traces) }],
  ['100 spans, gzip', { headers: { 'grpc-encoding': 'gzip' }, body: framed(gzipSync(traces), 1) }],
]

/** Sends so many calls over the connections, the next of each as soon as one is answered. */
async function sendCalls(sessions: readonly Session[], request: GrpcRequest, count: number): Promise<void> {
  let left = count
  const sendOn = async (session: Session): Promise<void> => {
    while (left-- > 0) {
      const { status, message } = await beginCall(session, request).reply
      if (status !== 0) throw new Error(`a call was answered ${status}: ${message}`)
    }
  }
  const senders = sessions.flatMap((session) =>
    Array.from({ length: callsAtOnce / connections }, () => session),
  )
  await Promise.all(senders.map(sendOn))
}

/** User and system time of one call in the listener's process, in microseconds. */
async function cpuOfCall(listener: Listener, request: GrpcRequest): Promise<number> {
  await using server = await startGrpcProcess({ listener, sampleMs: 60_000 })
  const sessions = await Promise.all(Array.from({ length: connections }, () => connectHttp2(server.port)))
  await sendCalls(sessions, request, warmUpCalls)
  await server.usage()
  await sendCalls(sessions, request, calls)
  const { cpuMs } = await server.usage()
  for (const session of sessions) await session[Symbol.asyncDispose]()
  return (cpuMs * 1000) / calls
}

/** What 100 calls of 20 MB did to a process. */
interface LargeCalls {
  grownMegabytes: number
  taken: number
}

/** By how much the process grows at its peak while calls come on 100 connections, each of which sends its last byte last. */
async function memoryOfLargeCalls(listener: Listener): Promise<LargeCalls> {
  await using server = await startGrpcProcess({ listener })
  const sessions = await Promise.all(Array.from({ length: 100 }, () => connectHttp2(server.port)))
  await sendCalls(sessions, {}, 200)
  const before = await server.usage()
  const body = framed(spanOfBytes(20 * 1024 ** 2))
  const begun = sessions.map((session) => beginCall(session, { body: Buffer.alloc(0), open: true }))
  const sent = begun.map(({ stream, reply }) =>
    Promise.race([reply, new Promise((resolve) => stream.write(body.subarray(0, -1), resolve))]),
  )
  await Promise.all(sent)
  for (const { stream } of begun) if (!stream.destroyed) stream.end(body.subarray(-1))
  const replies = await Promise.all(begun.map(({ reply }) => reply))
  const after = await server.usage()
  for (const session of sessions) await session[Symbol.asyncDispose]()
  return {
    grownMegabytes: (after.peakRssBytes - before.rssBytes) / 1024 ** 2,
    taken: replies.filter(({ status }) => status === 0).length,
  }
}

const rows: string[][] = []
for (const [name, request] of bodies) {
  const best = new Map<Listener, number>()
  for (let round = 0; round < rounds; round++) {
    for (const listener of listeners) {
      const microseconds = await cpuOfCall(listener, request)
      best.set(listener, Math.min(best.get(listener) ?? Number.POSITIVE_INFINITY, microseconds))
    }
  }
  rows.push([`CPU time of a call of ${name}`, ...listeners.map((one) => `${best.get(one)?.toFixed(0)} µs`)])
}
const memory = []
for (const listener of listeners) memory.push(await memoryOfLargeCalls(listener))
rows.push([
  'peak memory above idle, 100 calls of 20 MB at once',
  ...memory.map(({ grownMegabytes }) => `${grownMegabytes.toFixed(0)} MB`),
])
rows.push(['calls taken of those 100', ...memory.map(({ taken }) => String(taken))])
console.log(renderTable([['', ...listeners], ...rows], [60, 10, 10]))
