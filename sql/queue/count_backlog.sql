-- $1 the most pending rows, and the most failed batches, to count, $2 lowest id. Pending rows and those of failed batches
-- wait; those being worked on do not. cost_ms is what counting took the server; below first_id nothing was pending.
SELECT
  coalesce(pending.first_id, pg_sequence_last_value('ingestion_queue_id_seq'), 0) AS first_id,
  (pending.rows + failed.rows)::int AS rows,
  (pending.bytes + failed.bytes)::float8 AS bytes,
  extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 * 1000 AS cost_ms
FROM
  (
    SELECT count(*) AS rows, coalesce(sum(bytes), 0) AS bytes, min(id) AS first_id
    FROM (
      SELECT id, bytes FROM ingestion_queue WHERE batch_id IS NULL AND id >= $2::bigint ORDER BY id LIMIT $1::int
    ) AS first_rows
  ) AS pending,
  (
    SELECT coalesce(sum(rows), 0) AS rows, coalesce(sum(bytes), 0) AS bytes
    FROM (
      SELECT rows, bytes FROM ingestion_batch WHERE status = 'failed' ORDER BY next_attempt_at LIMIT $1::int
    ) AS first_batches
  ) AS failed
