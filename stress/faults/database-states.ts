import { setTimeout as wait } from 'node:timers/promises'
import postgres from 'postgres'
import { until } from '../waiting.ts'
import { expect, type Fault } from './fault.ts'
import { afterDatabaseOutage, expectRetryable } from './outages.ts'
import type { Scene } from './scene.ts'

const backWithinMs = 20_000
const stateMs = 4_000
const terminateEveryMs = 100

/** A connection of its own to the scene's database, past the proxy. */
async function withConnection<T>(scene: Scene, use: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = postgres(scene.stage.databaseUrl, { max: 1, onnotice: () => undefined })
  try {
    return await use(sql)
  } finally {
    await sql.end({ timeout: 2 })
  }
}

const terminateAll = ({ stage }: Scene, sql: postgres.Sql) => sql`
  SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE datname = ${stage.database} AND application_name LIKE 'sluice %'`

/** The codes that the logs of all processes name. */
function codesSeen({ stage }: Scene, code: string): number {
  return stage.processes.reduce(
    (sum, { log }) => sum + log.filter((line) => JSON.stringify(line).includes(code)).length,
    0,
  )
}

/** More than the server has. */
const takenMax = 400

const noConnections: Fault = {
  name: 'no connection left (53300)',
  async bring(context) {
    const { scene } = context
    const taken: postgres.Sql[] = []
    const take = async (count: number): Promise<boolean> => {
      const tries = Array.from({ length: count }, () => {
        const sql = postgres(scene.stage.databaseUrl, { max: 1, onnotice: () => undefined })
        taken.push(sql)
        return sql`SELECT 1`.then(
          () => false,
          ({ code }: { code?: string }) => code === '53300',
        )
      })
      return (await Promise.all(tries)).includes(true)
    }
    let full = false
    const first = postgres(scene.stage.databaseUrl, { max: 1, onnotice: () => undefined })
    await first`SELECT 1`
    try {
      while (!full && taken.length < takenMax) full = await take(20)
      // Whoever loses a connection does not get it back.
      for (const untilMs = performance.now() + stateMs; full && performance.now() < untilMs; ) {
        await terminateAll(scene, first)
        await take(2)
        await wait(100)
      }
    } finally {
      await Promise.all([first, ...taken].map((sql) => sql.end({ timeout: 1 })))
    }
    expect(full, 'the server never ran out of connections')
    expect(codesSeen(scene, '53300') > 0, 'no process met 53300')
    return `${taken.length} others came; ${await afterDatabaseOutage(context)}`
  },
}

const readOnly: Fault = {
  name: 'a read-only primary (25006, G7)',
  async bring(context) {
    const { scene } = context
    await withConnection(scene, async (sql) => {
      const set = async (statement: string) => {
        await sql.unsafe(statement)
        await sql`SELECT pg_reload_conf()`
      }
      await set('ALTER SYSTEM SET default_transaction_read_only = on')
      await wait(stateMs)
      await set('ALTER SYSTEM RESET default_transaction_read_only')
    })
    expect(codesSeen(scene, '25006') > 0, 'no process met 25006')
    return await afterDatabaseOutage(context)
  },
}

const terminated: Fault = {
  name: 'backends ended ten times a second (57P01, G9)',
  async bring({ scene }) {
    let ended = 0
    for (const untilMs = performance.now() + stateMs; performance.now() < untilMs; ) {
      ended += (await withConnection(scene, (sql) => terminateAll(scene, sql))).length
      await wait(terminateEveryMs)
    }
    expect(await scene.moreStored(60, backWithinMs), 'afterwards 60 requests were not answered 200')
    return `${ended} backends ended; ${scene.ledger.describe()}`
  },
}

/** A trigger fails a share of the statements with a code that our own transactions cannot bring about alone. */
const serialization: Fault = {
  name: 'serialization failures (40001)',
  async bring({ scene }) {
    await withConnection(scene, async (sql) => {
      await sql.unsafe(`
        CREATE FUNCTION fail_some() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF random() < 0.3 THEN
            RAISE EXCEPTION 'could not serialize access due to concurrent update' USING ERRCODE = '40001';
          END IF;
          RETURN NULL;
        END $$`)
      const tables = ['ingestion_queue', 'ingestion_batch', 'stored_object']
      for (const table of tables) {
        await sql.unsafe(
          `CREATE TRIGGER fail_some AFTER INSERT OR UPDATE OR DELETE ON ${table} EXECUTE FUNCTION fail_some()`,
        )
      }
      await wait(stateMs)
      for (const table of tables) await sql.unsafe(`DROP TRIGGER fail_some ON ${table}`)
    })
    expect(codesSeen(scene, '40001') > 0, 'no process met 40001')
    expect(await scene.moreStored(60, backWithinMs), 'afterwards 60 requests were not answered 200')
    return `${codesSeen(scene, '40001')} lines of log name it; ${scene.ledger.describe()}`
  },
}

const deadlockTries = 20

/** Holds the rows of a batch, waits until its settle waits for them, and then wants what the settle has. */
const deadlock: Fault = {
  name: 'a deadlock with a settle (40P01)',
  async bring({ scene }) {
    const { stage } = scene
    stage.proxy.set({ kind: 'slow', delayMs: 400 })
    let [ours, theirs] = [0, 0]
    for (let tries = 0; tries < deadlockTries && theirs === 0; tries++) {
      await withConnection(scene, async (sql) => {
        await sql
          .begin(async (held) => {
            // The settle has waited longer by then, so it is the one that is chosen.
            await held`SET LOCAL deadlock_timeout = '10s'`
            const [batch]: { batch_id: string }[] = await held`
              SELECT batch_id FROM ingestion_batch WHERE status = 'processing' ORDER BY claimed_at DESC LIMIT 1`
            if (batch === undefined) return
            await held`SELECT id FROM ingestion_queue WHERE batch_id = ${batch.batch_id} FOR UPDATE`
            const [{ pid } = { pid: 0 }] = await held<{ pid: number }[]>`SELECT pg_backend_pid() AS pid`
            const waits = () => stage.sql`
              SELECT FROM pg_stat_activity WHERE ${pid} = ANY (pg_blocking_pids(pid))`
            if (!(await until(async () => (await waits()).length > 0, 1_500))) return
            await held`SELECT FROM ingestion_batch WHERE batch_id = ${batch.batch_id} FOR UPDATE`
          })
          .catch((error: { code?: string }) => {
            if (error.code !== '40P01') throw error
            ours++
          })
      })
      theirs = codesSeen(scene, '40P01')
      if (theirs === 0) await wait(50)
    }
    stage.proxy.set({ kind: 'open' })
    expect(theirs > 0, `no process was chosen in ${deadlockTries} deadlocks, we were in ${ours}`)
    expect(await scene.moreStored(60, backWithinMs), 'afterwards 60 requests were not answered 200')
    return `${theirs} lines of log name it`
  },
}

const statementTimeoutMs = 700

/**
 * Each session sets a `statement_timeout` of 30 s, which has the last word over those of role and database. A trigger
 * shortens it for the next statement of the session, so that a lock need not be held for so long: what ends the statement
 * is the server's own timer.
 */
const statementTimeout: Fault = {
  name: 'statement_timeout while a lock is held (57014)',
  async bring({ scene }) {
    const tables = ['ingestion_queue', 'ingestion_batch']
    await withConnection(scene, async (sql) => {
      await sql.unsafe(`
        CREATE FUNCTION be_impatient() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM set_config('statement_timeout', '${statementTimeoutMs}', false);
          RETURN NULL;
        END $$`)
      for (const table of tables) {
        await sql.unsafe(
          `CREATE TRIGGER be_impatient AFTER INSERT OR UPDATE OR DELETE ON ${table} EXECUTE FUNCTION be_impatient()`,
        )
      }
      expect(await scene.moreStored(60, backWithinMs), 'the sessions wrote nothing')
      await sql.begin(async (held) => {
        await held`LOCK TABLE ingestion_queue IN ACCESS EXCLUSIVE MODE`
        await wait(stateMs)
      })
      for (const table of tables) await sql.unsafe(`DROP TRIGGER be_impatient ON ${table}`)
      // The next sessions have their 30 s again.
      await terminateAll(scene, sql)
    })
    const said = codesSeen(scene, 'canceling statement due to statement timeout')
    expect(said > 0 && codesSeen(scene, '57014') >= said, 'no statement came to the end of its time')
    expect(await scene.moreStored(60, backWithinMs), 'afterwards 60 requests were not answered 200')
    expectRetryable(scene)
    return `${said} lines of log say so; ${scene.ledger.describe()}`
  },
}

const snapshotRows = 20_000

/** A report, a dump or a forgotten session that keeps every dead row in the way of the claims. */
const heldSnapshot: Fault = {
  name: 'a snapshot held open (G2)',
  async bring({ scene }) {
    const { stage } = scene
    let claimMs = Number.NaN
    await withConnection(scene, async (sql) => {
      await sql.begin('ISOLATION LEVEL REPEATABLE READ', async (held) => {
        await held`SELECT count(*) FROM ingestion_queue`
        // As many dead rows before the living ones as the load would leave in minutes.
        await stage.sql.begin(async (filling) => {
          await filling`
            INSERT INTO ingestion_queue
              (signal, tenant, encoding, items, bytes, unpacked_bytes, request_id, summary, payload)
            SELECT 1, 'default', 0, 1, 1, 1, 'dead', ''::bytea, ''::bytea FROM generate_series(1, ${snapshotRows})`
          await filling`DELETE FROM ingestion_queue WHERE request_id = 'dead'`
        })
        expect(
          await scene.moreStored(240, backWithinMs),
          'beside the snapshot 240 requests were not answered 200',
        )
        const drained = await until(async () => {
          const [row] = await stage.sql<{ rows: number }[]>`SELECT count(*)::int AS rows FROM ingestion_queue`
          return (row?.rows ?? 0) < 60
        }, backWithinMs)
        expect(drained, 'beside the snapshot the queue did not drain')
        const startedMs = performance.now()
        await stage.sql`SELECT id FROM ingestion_queue WHERE batch_id IS NULL ORDER BY id LIMIT 25`
        claimMs = performance.now() - startedMs
      })
    })
    return `a look at the oldest 25 rows took ${claimMs.toFixed(0)} ms behind ${snapshotRows} dead ones`
  },
}

export const databaseStateFaults: readonly Fault[] = [
  noConnections,
  readOnly,
  terminated,
  serialization,
  deadlock,
  statementTimeout,
  heldSnapshot,
]
