-- $1 hash of a trace id, $2 the most requests. Where each request lies that may hold spans of the trace, oldest first.
SELECT
  object.bucket,
  object.key,
  object.encoding,
  object.offsets[entry.request_no + 1] AS start_byte,
  coalesce(object.offsets[entry.request_no + 2], object.bytes)::float8 AS end_byte
FROM trace_index AS entry
JOIN stored_object AS object USING (object_id)
WHERE entry.trace_hash = $1::bigint
ORDER BY object.object_id, entry.request_no
LIMIT $2::int
