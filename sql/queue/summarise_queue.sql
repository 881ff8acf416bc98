-- What waits, by status, with the dead letters as a fourth one.
SELECT status, count(*)::int AS rows, sum(items)::float8 AS items, sum(bytes)::float8 AS bytes,
  extract(epoch FROM clock_timestamp() - min(received_at))::float8 AS oldest_seconds
FROM (
  SELECT status, items, bytes, received_at FROM ingestion_queue_status
  UNION ALL
  SELECT 'dead', items, bytes, received_at FROM dead_letter
) AS waiting
GROUP BY status
