import { openEmbedded } from '../../src/postgres/embedded.ts'
import { closePool, openPool } from '../../src/postgres/pool.ts'

/**
 * A process that owns an embedded server, as Sluice does: it says `ready`, and on SIGTERM or SIGINT drains, which
 * takes the database, and stops it last. Tests start it and kill it.
 */
const [dataDir = ''] = process.argv.slice(2)
const say = (event: string, fields: object = {}) =>
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`)

const embedded = await openEmbedded({
  dataDir,
  log: (level, detail) => say('log', { level, detail }),
  onOwnershipLost: (failure) => say('lost', { detail: failure.message }),
})
const sql = openPool({ url: embedded.location, name: 'drain', connections: 1, statementTimeoutMs: 5_000 })
let draining: Promise<void> | undefined

async function drain(): Promise<void> {
  await sql`CREATE TABLE IF NOT EXISTS drained (n int)`
  await sql`SELECT pg_sleep(0.5)`
  await sql`INSERT INTO drained VALUES (1)`
  await closePool(sql, 1_000)
  await embedded.stop()
  say('stopped')
  process.exitCode = 0
}
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    say('signal', { signal })
    draining ??= drain()
  })
}
await sql`SELECT 1`
say('ready', { pid: embedded.pid, adopted: embedded.adopted })
// What keeps the process alive, as a listener does.
setInterval(() => draining !== undefined && process.exitCode === 0 && process.exit(), 20)
