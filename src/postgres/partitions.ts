import { answerOf, type Sql } from './pool.ts'

/**
 * Makes the partitions of `trace_index` for today and `daysAhead` days, in UTC by the database's clock, where they are
 * missing. May run in any number of processes at once.
 */
export async function ensureTraceIndexPartitions(sql: Sql, daysAhead = 7): Promise<void> {
  await answerOf(
    sql,
    sql`
      SELECT ensure_trace_index_partition((clock_timestamp() AT TIME ZONE 'UTC')::date + day)
      FROM generate_series(0, ${daysAhead}::int) AS day`,
  )
}

/** Makes the partition of `trace_index` for the UTC day of `time` if it is missing. */
export async function ensureTraceIndexPartition(sql: Sql, time: Date): Promise<void> {
  await answerOf(
    sql,
    sql`SELECT ensure_trace_index_partition(${time.toISOString().slice(0, 10)}::text::date)`,
  )
}
