-- $1 most rows, $2 lowest id. What a poller looks at before it claims: how many of the first pending rows there are and
-- how long the oldest has waited. Takes no lock.
SELECT
  count(*)::int AS rows,
  coalesce(extract(epoch FROM clock_timestamp() - min(received_at)) * 1000, 0)::float8 AS oldest_ms
FROM (
  SELECT received_at FROM ingestion_queue WHERE batch_id IS NULL AND id >= $2::bigint ORDER BY id LIMIT $1::int
) AS first_rows
