import postgres from 'postgres'
import { Machine } from '../machine.ts'
import { postgresSettings } from '../postgres-server.ts'

/** What docs/operations.md asks of a server under load, smaller, because the machine has other things to do. */
const loadSettings = {
  shared_buffers: '1GB',
  // Files of the log are kept for the next use, as many as lie between two checkpoints.
  min_wal_size: '2GB',
  // What sessions write is on its way to the disk before a checkpoint waits for all of it at once.
  backend_flush_after: '512kB',
} as const
export const benchPostgresSettings = { ...postgresSettings, ...loadSettings }

/** A checkpoint comes after half of `max_wal_size` and a little. */
const logBytes = 1.1 * 1024 ** 3
const messageBytes = 8_000_000

/**
 * The servers of a measurement, with PostgreSQL as it is after its first checkpoint: it writes into files of its log that it has
 * written before. In a new one each 16 MiB would cost 16 MiB of zeros more, and a commit that waits for them 40 ms.
 */
export async function startSteadyMachine(say: (line: string) => void): Promise<Machine> {
  say('starting PostgreSQL and MinIO')
  const machine = await Machine.start(loadSettings)
  const sql = postgres(machine.postgres.url('postgres'), { max: 1, onnotice: () => undefined })
  try {
    say('writing the files of the log once')
    for (let bytes = 0; bytes < logBytes; bytes += messageBytes) {
      await sql`SELECT pg_logical_emit_message(false, 'bench', repeat('x', ${messageBytes}), true)`
    }
    await sql`CHECKPOINT`
    return machine
  } catch (error) {
    await machine.stop()
    throw error
  } finally {
    await sql.end({ timeout: 1 })
  }
}
