-- $1 signal or null, $2 tenant or null, $3 stored at or after, or null, $4 the most rows. The newest first.
SELECT
  object_id, batch_id, tenant, signal, encoding, bucket, key, requests, items, bytes, min_time, max_time,
  to_jsonb(services) AS services, checksum, stored_at
FROM stored_object
WHERE ($1::smallint IS NULL OR signal = $1::smallint)
  AND ($2::text IS NULL OR tenant = $2::text)
  AND ($3::timestamptz IS NULL OR stored_at >= $3::timestamptz)
ORDER BY stored_at DESC, key
LIMIT $4::int
