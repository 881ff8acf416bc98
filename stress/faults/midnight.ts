import { setTimeout as wait } from 'node:timers/promises'
import { expect, type Fault } from './fault.ts'

const times = 5

/**
 * What a worker meets at midnight when nobody has made the day's partition: there is none for its batch. It is taken away
 * under load, several times, because the real midnight comes once a day.
 */
export const midnight: Fault = {
  name: 'a day without a partition, as at midnight',
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
