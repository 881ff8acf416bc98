import { setTimeout as wait } from 'node:timers/promises'
import type { Database } from '../machine.ts'
import { usageOf } from '../processes.ts'
import type { SoakSample } from './soak-judgement.ts'

interface SampleOptions {
  sql: Database
  pids: ReadonlyMap<string, number>
  everySeconds: number
  onSample: (sample: SoakSample) => void
}

/** Looks at once, and then every so often until `over`; resolves with what it saw. */
export async function collectSamples(options: SampleOptions, over: AbortSignal): Promise<SoakSample[]> {
  const { everySeconds, onSample } = options
  const startedMs = performance.now()
  const samples: SoakSample[] = []
  for (let number = 0; !over.aborted; number++) {
    const sample = await sampleNow(options, startedMs)
    samples.push(sample)
    onSample(sample)
    const dueMs = startedMs + (number + 1) * everySeconds * 1000
    await wait(Math.max(0, dueMs - performance.now()), undefined, { signal: over }).catch(() => undefined)
  }
  return samples
}

async function sampleNow({ sql, pids }: SampleOptions, startedMs: number): Promise<SoakSample> {
  const seconds = (performance.now() - startedMs) / 1000
  const usages = [...pids].map(([name, pid]) => ({ name, usage: usageOf(pid) }))
  const memory = (bytes: 'residentBytes' | 'ownBytes') =>
    Object.fromEntries(usages.map(({ name, usage }) => [name, usage?.[bytes] ?? 0]))
  const [rows] = await sql<{ pending: number; all: number; dead: number; wal: number }[]>`
    SELECT
      (SELECT count(*)::int FROM ingestion_queue WHERE batch_id IS NULL) AS pending,
      (SELECT count(*)::int FROM ingestion_queue) AS all,
      (SELECT coalesce(sum(n_dead_tup), 0)::float8 FROM pg_stat_user_tables WHERE relname ~ '^ingestion_') AS dead,
      pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 AS wal`
  const sizes = await sql<{ name: string; bytes: number }[]>`
    WITH tables AS (
      SELECT oid, relname, relkind, reltoastrelid FROM pg_class
      WHERE relnamespace = 'public'::regnamespace AND relname ~ '^ingestion_' AND relkind IN ('r', 'i')
    )
    SELECT CASE relkind WHEN 'r' THEN 'table ' ELSE 'index ' END || relname AS name,
      pg_relation_size(oid)::float8 AS bytes
    FROM tables
    UNION ALL
    SELECT 'table ' || relname || ', out of line', pg_total_relation_size(reltoastrelid)::float8
    FROM tables WHERE reltoastrelid <> 0`
  return {
    seconds,
    residentBytes: memory('residentBytes'),
    ownBytes: memory('ownBytes'),
    cpuSeconds: usages.reduce((sum, { usage }) => sum + (usage?.cpuSeconds ?? 0), 0),
    pendingRows: rows?.pending ?? 0,
    queueRows: rows?.all ?? 0,
    deadRows: rows?.dead ?? 0,
    walBytes: rows?.wal ?? 0,
    sizes: Object.fromEntries(sizes.map(({ name, bytes }) => [name, bytes])),
  }
}
