-- $1 to $6 the filter: ids, reason, tenant, signal, died at or after, died before, each or null.
-- $7 and $8 only ids after and up to these, $9 the most rows, $10 the most bytes; the first row is always read.
WITH candidate AS MATERIALIZED (
  SELECT id, bytes
  FROM dead_letter
  WHERE ($1::bigint[] IS NULL OR id = ANY ($1::bigint[]))
    AND ($2::text IS NULL OR reason = $2::text)
    AND ($3::text IS NULL OR tenant = $3::text)
    AND ($4::smallint IS NULL OR signal = $4::smallint)
    AND ($5::timestamptz IS NULL OR died_at >= $5::timestamptz)
    AND ($6::timestamptz IS NULL OR died_at < $6::timestamptz)
    AND id > $7::bigint AND id <= $8::bigint
  ORDER BY id
  LIMIT $9::int
),
due AS MATERIALIZED (
  SELECT id
  FROM (
    SELECT id, row_number() OVER running AS place, sum(bytes::bigint) OVER running AS bytes
    FROM candidate
    WINDOW running AS (ORDER BY id ROWS UNBOUNDED PRECEDING)
  ) AS summed
  WHERE place = 1 OR bytes <= $10::bigint
)
SELECT
  id, batch_id, received_at, died_at, signal, encoding, tenant, request_id, items, bytes, unpacked_bytes, attempts,
  reason, first_error, last_error, payload
FROM dead_letter
WHERE id = ANY (ARRAY(SELECT id FROM due))
ORDER BY id
