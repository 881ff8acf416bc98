import { setTimeout as wait } from 'node:timers/promises'
import { expect, type Fault } from './fault.ts'
import { afterDatabaseOutage } from './outages.ts'
import { SmallDisk } from './small-disk.ts'

const diskBytes = 24 * 1024 * 1024
const fullMs = 4_000

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

export const fullDiskFaults: readonly Fault[] = [fullTables]
