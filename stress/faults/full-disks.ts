import { setTimeout as wait } from 'node:timers/promises'
import { until } from '../waiting.ts'
import { expect, type Fault } from './fault.ts'
import { afterDatabaseOutage } from './outages.ts'
import { SmallDisk } from './small-disk.ts'

const diskBytes = 24 * 1024 * 1024
const fullMs = 4_000
const backWithinMs = 20_000

/** The disk under the queue: PostgreSQL cannot make its tables longer (53100). */
const fullTables: Fault = {
  name: 'the disk of PostgreSQL is full (53100)',
  async bring(context) {
    const { scene } = context
    const { sql, database } = scene.stage
    const disk = await SmallDisk.mount(diskBytes)
    const space = `small_${database}`
    try {
      await sql.unsafe(`CREATE TABLESPACE ${space} LOCATION '${disk.folder}'`)
      const move = async (to: string) => {
        // One statement takes every lock it needs at once; readers and writers wait for it.
        await sql.unsafe(`ALTER TABLE ingestion_queue SET TABLESPACE ${to}`)
        await sql.unsafe(`ALTER INDEX ingestion_queue_pending SET TABLESPACE ${to}`)
      }
      await move(space)
      await disk.fill()
      await wait(fullMs)
      const lines = scene.stage.processes.reduce(
        (sum, { log }) => sum + log.filter((line) => JSON.stringify(line).includes('53100')).length,
        0,
      )
      await disk.empty()
      expect(lines > 0, 'no process met 53100')
      const seen = await afterDatabaseOutage(context)
      await move('pg_default')
      await sql.unsafe(`DROP TABLESPACE ${space}`)
      return `${lines} lines of log name it; ${seen}`
    } finally {
      await disk.unmount()
    }
  },
}

const walDiskBytes = 160 * 1024 * 1024
const endedWithinMs = 10_000
const awayMs = 2_000

/** The disk under pg_wal: nothing can be committed any more, so the server ends. */
const fullWal: Fault = {
  name: 'the disk of pg_wal is full, and PostgreSQL ends',
  ground: { databaseDiskBytes: walDiskBytes },
  async bring(context) {
    const { scene } = context
    const { server, databaseDisk: disk } = scene.ground
    if (server === undefined || disk === undefined) throw new Error('there is no disk to fill')
    await disk.fill()
    const ended = await until(async () => {
      // Else it would take long until the segments that are there are full.
      await scene.stage.sql`SELECT pg_switch_wal()`.catch(() => undefined)
      return server.hasEnded
    }, endedWithinMs)
    // So long that senders hear of it.
    await wait(awayMs)
    await disk.empty()
    expect(ended, 'PostgreSQL did not end')
    const said = /PANIC: .*No space left on device/.exec(await server.log())?.[0]
    expect(said, 'PostgreSQL did not say that it ends for want of space')
    await server.restart()
    return `${said}; ${await afterDatabaseOutage(context)}`
  },
}

const storeDiskBytes = 16 * 1024 * 1024

/** The disk under the folder store: objects wait in the queue, and nobody is blamed. */
const fullFolder: Fault = {
  name: 'the disk of the folder store is full (ENOSPC)',
  ground: { storeDiskBytes },
  async bring({ scene }) {
    const { ledger, stage, ground, workers } = scene
    if (ground.storeDisk === undefined) throw new Error('there is no disk to fill')
    const stored = async () => (await stage.store.list()).size
    expect(await until(async () => (await stored()) > 0, backWithinMs), 'nothing was stored')
    await ground.storeDisk.fill()
    await wait(fullMs)
    const [row] = await stage.sql<{ attempts: number; outages: number; rows: number }[]>`
      SELECT coalesce(max(attempts), 0)::int AS attempts, coalesce(max(outages), 0)::int AS outages,
        (SELECT count(*)::int FROM ingestion_queue) AS rows
      FROM ingestion_batch`
    const before = await stored()
    await ground.storeDisk.empty()
    const lines = workers.flatMap(({ log }) => log.filter(({ event }) => event === 'batch_persist_failed'))
    expect(
      lines.length > 0 && lines.every((line) => JSON.stringify(line).includes('ENOSPC')),
      `${lines.length} × batch_persist_failed, not all with ENOSPC`,
    )
    expect(row !== undefined && row.outages > 0 && row.attempts === 0, 'it was not counted as an outage')
    expect(
      ledger.select(({ answer }) => answer.kind === 'answered' && answer.status !== 200).length === 0,
      'a sender heard of it',
    )
    expect(await until(async () => (await stored()) > before, backWithinMs), 'nothing was stored afterwards')
    return `${lines.length} × batch_persist_failed, all ENOSPC, no attempt counted; ${row.rows} requests waited`
  },
}

export const fullDiskFaults: readonly Fault[] = [fullTables, fullWal, fullFolder]
