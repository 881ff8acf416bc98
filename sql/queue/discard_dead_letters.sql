-- $1 to $6 the filter: ids, reason, tenant, signal, died at or after, died before, each or null.
-- $7 and $8 only ids after and up to these, $9 the most rows.
WITH due AS MATERIALIZED (
  SELECT id
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
  FOR UPDATE
),
gone AS (
  DELETE FROM dead_letter WHERE id = ANY (ARRAY(SELECT id FROM due)) RETURNING id, bytes
)
SELECT count(*)::int AS rows, coalesce(sum(bytes), 0)::float8 AS bytes, max(id) AS last_id FROM gone
