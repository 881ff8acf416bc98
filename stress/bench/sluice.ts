import { readFileSync } from 'node:fs'
import path from 'node:path'
import { parseEnv } from 'node:util'
import type { Machine, Stage } from '../machine.ts'
import { queueEmpty } from '../waiting.ts'
import type { Subject } from './subject.ts'

const drainWithinMs = 180_000

/** The settings of config/throughput.env. */
export function throughputSettings(): Record<string, string> {
  const file = path.join(import.meta.dirname, '../../config/throughput.env')
  return Object.fromEntries(
    Object.entries(parseEnv(readFileSync(file, 'utf8'))).map(([name, value]) => [name, value ?? '']),
  )
}

/** An ingress and a worker, each a process of its own, with a database and a bucket of their own, which `prepare` sees first. */
export async function startSluice(
  machine: Machine,
  name: string,
  settings: Readonly<Record<string, string>>,
  prepare: (stage: Stage) => Promise<void> = async () => undefined,
): Promise<Subject & { readonly stage: Stage }> {
  const stage = await machine.stage(name)
  await prepare(stage)
  // Straight to the store: the proxy of the stages costs CPU time that nobody would pay.
  const whole = { ...settings, S3_ENDPOINT: machine.minio.endpoint.origin }
  const [ingress, worker] = await Promise.all([stage.ingress(whole), stage.worker(whole)])
  return {
    stage,
    name: 'Sluice',
    url: ingress.url,
    pids: new Map([
      ['ingress', ingress.process.pid],
      ['worker', worker.pid],
      ['PostgreSQL', machine.postgres.pid],
      ['MinIO', machine.minio.pid],
    ]),
    settings,
    async settle() {
      await drained()
      // A checkpoint of what came before would be paid by what is measured.
      await stage.sql`CHECKPOINT`
    },
    drained: () => drained(),
    close: () => stage.dispose(),
  }

  async function drained(): Promise<void> {
    if (!(await queueEmpty(stage, drainWithinMs))) {
      throw new Error(`the queue was not empty after ${drainWithinMs / 1000} s`)
    }
  }
}
