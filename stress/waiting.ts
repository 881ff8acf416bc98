import { setTimeout as wait } from 'node:timers/promises'
import type { Stage } from './machine.ts'

const pollMs = 50

/** Resolves with true when `holds` does, with false when it did not within `withinMs`. Looks every 50 ms. */
export async function until(holds: () => Promise<boolean> | boolean, withinMs: number): Promise<boolean> {
  const untilMs = performance.now() + withinMs
  for (;;) {
    if (await holds()) return true
    if (performance.now() > untilMs) return false
    await wait(pollMs)
  }
}

/** Resolves with true when neither rows nor batches are left in the queue. */
export function queueEmpty(stage: Stage, withinMs: number): Promise<boolean> {
  return until(async () => {
    const [left] = await stage.sql<{ some: boolean }[]>`
      SELECT EXISTS (SELECT FROM ingestion_queue) OR EXISTS (SELECT FROM ingestion_batch) AS some`
    return left?.some === false
  }, withinMs)
}

/** Rows in the queue, claimed or not. */
export async function queuedRows(stage: Stage): Promise<number> {
  const [left] = await stage.sql<{ rows: number }[]>`SELECT count(*)::int AS rows FROM ingestion_queue`
  return left?.rows ?? 0
}
