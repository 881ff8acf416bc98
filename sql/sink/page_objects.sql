-- $1 and $2 stored_at, as text, and object id after which to go on, $3 stored before, $4 the most rows. In the order in
-- which they were stored; the time goes out and in as text, since a Date has no microseconds.
SELECT
  object_id, stored_at::text AS stored_at_text, bucket, key, signal, encoding, requests, items, bytes, checksum,
  to_jsonb(offsets) AS offsets
FROM stored_object
WHERE (stored_at, object_id) > ($1::text::timestamptz, $2::uuid) AND stored_at < $3::timestamptz
ORDER BY stored_at, object_id
LIMIT $4::int
