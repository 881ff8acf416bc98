import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { freePort } from '../../test/support/free-port.ts'
import { until } from '../waiting.ts'
import { Sink } from './sink.ts'
import type { Subject } from './subject.ts'

/** Its queue in memory, or in a file with fsync: only the second survives a crash. */
export type CollectorQueue = 'fsync' | 'memory'

const startWithinMs = 15_000
const drainWithinMs = 180_000
const wordsKept = 2_000

/** The Collector's program in the folder that `PEER` names. */
export function collectorProgram(folder: string): string {
  const program = path.resolve(folder, 'otelcol-peer')
  try {
    accessSync(program, constants.X_OK)
  } catch {
    throw new Error(
      `PEER=${folder} has no program otelcol-peer that can be run: build a Collector into it first`,
    )
  }
  return program
}

/** Starts a Collector that exports each request to a sink as it takes it, and resolves when it listens. */
export async function startCollector(program: string, queue: CollectorQueue): Promise<Subject> {
  const folder = await mkdtemp(path.join(tmpdir(), 'sluice-bench-collector-'))
  const sink = await Sink.start()
  const port = await freePort()
  // JSON is YAML.
  const config = JSON.stringify(configuration({ port, sink: sink.url, folder, queue }))
  const child = spawn(program, ['--config', `yaml:${config}`], { stdio: ['ignore', 'ignore', 'pipe'] })
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  let words = ''
  child.stderr.on('data', (chunk: Buffer) => {
    words = (words + chunk.toString()).slice(-wordsKept)
  })
  const isUp = await until(() => child.exitCode !== null || listens(port), startWithinMs)
  if (!isUp || child.exitCode !== null) throw new Error(`the Collector did not start:\n${words}`)
  let before = 0
  return {
    name: `Collector, ${queue === 'fsync' ? 'disk queue with fsync' : 'memory queue'}`,
    url: new URL(`http://127.0.0.1:${port}`),
    pids: new Map([['Collector', child.pid ?? 0]]),
    settings: { sending_queue: queue, num_consumers: String(consumers), compression: 'none' },
    async settle() {
      before = await sink.requests()
    },
    async drained(taken) {
      const isDone = async () => (await sink.requests()) - before >= taken
      if (!(await until(isDone, drainWithinMs))) {
        throw new Error(`the Collector did not export ${taken} requests within ${drainWithinMs / 1000} s`)
      }
    },
    async close() {
      process.off('exit', kill)
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL')
        await once(child, 'exit')
      }
      await sink.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Four consumers are those of the comparison in which the goals were set. */
const consumers = 4

function configuration(of: { port: number; sink: URL; folder: string; queue: CollectorQueue }): object {
  const isOnDisk = of.queue === 'fsync'
  const sendingQueue = {
    enabled: true,
    num_consumers: consumers,
    queue_size: 1_000_000,
    ...(isOnDisk && { storage: 'file_storage' }),
  }
  const pipeline = { receivers: ['otlp'], exporters: ['otlphttp'] }
  return {
    receivers: { otlp: { protocols: { http: { endpoint: `127.0.0.1:${of.port}` } } } },
    exporters: {
      otlphttp: { endpoint: of.sink.origin, compression: 'none', sending_queue: sendingQueue },
    },
    ...(isOnDisk && {
      extensions: { file_storage: { directory: of.folder, create_directory: true, fsync: true } },
    }),
    service: {
      telemetry: { metrics: { level: 'none' } },
      ...(isOnDisk && { extensions: ['file_storage'] }),
      pipelines: { traces: pipeline, metrics: pipeline, logs: pipeline },
    },
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: '127.0.0.1', port })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
