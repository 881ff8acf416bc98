-- $1 to $6 the filter: ids, reason, tenant, signal, died at or after, died before, each or null.
-- $7 only ids before, $8 the most rows. The newest request first, without its bytes.
SELECT
  id, batch_id, received_at, died_at, signal, encoding, tenant, request_id, items, bytes, unpacked_bytes, attempts,
  reason, first_error, last_error
FROM dead_letter
WHERE ($1::bigint[] IS NULL OR id = ANY ($1::bigint[]))
  AND ($2::text IS NULL OR reason = $2::text)
  AND ($3::text IS NULL OR tenant = $3::text)
  AND ($4::smallint IS NULL OR signal = $4::smallint)
  AND ($5::timestamptz IS NULL OR died_at >= $5::timestamptz)
  AND ($6::timestamptz IS NULL OR died_at < $6::timestamptz)
  AND id < $7::bigint
ORDER BY id DESC
LIMIT $8::int
