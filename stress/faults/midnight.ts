import { setTimeout as wait } from 'node:timers/promises'
import { readBack } from '../read-back.ts'
import { until } from '../waiting.ts'
import { expect, type Fault } from './fault.ts'
import type { Scene } from './scene.ts'

const times = 5

/** Nobody has made the day's partition: there is none for a batch. It is taken away under load, several times. */
const withoutPartition: Fault = {
  name: 'a day without a partition',
  async bring({ scene }) {
    const { sql } = scene.stage
    for (let time = 0; time < times; time++) {
      await sql.unsafe(`DO $$
        DECLARE partition regclass;
        BEGIN
          FOR partition IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'trace_index'::regclass LOOP
            EXECUTE format('DROP TABLE %s', partition);
          END LOOP;
        END $$`)
      await wait(500)
      expect(await scene.moreStored(20, 15_000), 'nothing was taken after the partitions had gone')
    }
    await wait(1_000)
    const [row] = await sql<{ partitions: number }[]>`
      SELECT count(*)::int AS partitions FROM pg_inherits WHERE inhparent = 'trace_index'::regclass`
    expect((row?.partitions ?? 0) > 0, 'no partition was made again')
    return `taken away ${times} times under load and made again by whoever missed it`
  },
}

/** So long before midnight the load begins, and so long it goes on afterwards. */
const secondsBefore = 10
const secondsAfter = 3

/** The time by the database's clock. */
async function databaseTime({ stage }: Scene): Promise<Date> {
  const [row] = await stage.sql<{ time: Date }[]>`SELECT clock_timestamp() AS time`
  return row?.time ?? new Date(Number.NaN)
}

const secondOfDay = (time: Date) => (time.getTime() / 1000) % 86_400
const partitionOf = (day: string) => `trace_index_${day.replaceAll('-', '')}`

/** Midnight itself, by the clocks of PostgreSQL and of every process, on a night for which nobody made the partition. */
const midnight: Fault = {
  name: 'midnight under load, and no partition for the new day',
  ground: { loadBeginsAt: `23:59:${60 - secondsBefore}` },
  async bring({ scene }) {
    const { sql } = scene.stage
    const begun = await databaseTime(scene)
    expect(begun.getTime() - Date.now() > 43_200_000, 'PostgreSQL goes by the real clock')
    expect(secondOfDay(begun) > 86_400 - secondsBefore, `the load began too late, at ${begun.toISOString()}`)
    const newDay = new Date(begun.getTime() + 86_400_000).toISOString().slice(0, 10)
    await sql.unsafe(`DROP TABLE ${partitionOf(newDay)}`)
    const past = await until(
      async () => {
        const second = secondOfDay(await databaseTime(scene))
        return second >= secondsAfter && second < 43_200
      },
      (secondsBefore + secondsAfter + 5) * 1000,
    )
    expect(past, 'midnight did not come')
    expect(await scene.moreStored(60, 15_000), 'nothing was taken after midnight')
    const made = async () => {
      const [row] = await sql<
        { made: boolean }[]
      >`SELECT to_regclass(${partitionOf(newDay)}) IS NOT NULL AS made`
      return row?.made === true
    }
    expect(await until(made, 15_000), `nobody made the partition of ${newDay}`)
    expectFakeClocks(scene)
    return `load from ${begun.toISOString()} on; the partition of ${newDay} was made by whoever missed it`
  },
  async untrueAtRest(scene) {
    return await untrueTraces(scene)
  },
}

/** The night is not that of today. */
function expectFakeClocks({ stage }: Scene): void {
  const today = new Date().toISOString().slice(0, 10)
  for (const { name, log } of stage.processes) {
    const isFake = log.length > 0 && log.every((line) => !String(line.time).startsWith(today))
    expect(isFake, `${name} goes by the real clock`)
  }
}

interface IndexRow {
  hash: bigint
  key: string
  request_no: number
  object_id: string
  partition: string
}

/** Every trace that is stored is found in the index, every row of it lies in the partition of its day, and there are two days. */
async function untrueTraces(scene: Scene): Promise<string[]> {
  const rows = await scene.stage.sql<IndexRow[]>`
    SELECT trace_hash AS hash, key, request_no, object_id, entry.tableoid::regclass::text AS partition
    FROM trace_index AS entry LEFT JOIN stored_object USING (object_id)`
  const astray = rows.filter(({ object_id, partition }) => {
    const milliseconds = Number.parseInt(object_id.replaceAll('-', '').slice(0, 12), 16)
    return partition !== partitionOf(new Date(milliseconds).toISOString().slice(0, 10))
  })
  const days = new Set(rows.map(({ partition }) => partition))
  const indexed = new Set(rows.map(({ hash, key, request_no }) => `${hash} ${key} ${request_no}`))
  const missing: string[] = []
  let traces = 0
  await readBack(scene.stage, ({ marker = '', signal, key, place }) => {
    if (signal !== 'traces') return
    for (const id of scene.tracesOf(marker)) {
      traces++
      if (!indexed.has(`${hashOf(id)} ${key} ${place}`)) missing.push(`${id} of ${marker}`)
    }
  })
  return [
    ...(days.size === 2 ? [] : [`trace_index has rows of ${days.size} days`]),
    ...(traces === rows.length ? [] : [`${traces} traces stored, ${rows.length} rows of trace_index`]),
    ...(astray.length === 0
      ? []
      : [`${astray.length} rows of trace_index lie in the partition of another day`]),
    ...(missing.length === 0 ? [] : [`${missing.length} traces are not in trace_index (${missing[0]})`]),
  ]
}

/** The first eight bytes XOR the last eight, as a signed number. */
function hashOf(traceId: string): bigint {
  return BigInt.asIntN(64, BigInt(`0x${traceId.slice(0, 16)}`) ^ BigInt(`0x${traceId.slice(16)}`))
}

export const midnightFaults: readonly Fault[] = [withoutPartition, midnight]
