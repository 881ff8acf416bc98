-- $1 to $6 the filter: ids, reason, tenant, signal, died at or after, died before, each or null. $7 only ids after.
SELECT
  count(*)::int AS rows, coalesce(sum(items), 0)::float8 AS items, coalesce(sum(bytes), 0)::float8 AS bytes,
  coalesce(max(id), 0) AS last_id
FROM dead_letter
WHERE ($1::bigint[] IS NULL OR id = ANY ($1::bigint[]))
  AND ($2::text IS NULL OR reason = $2::text)
  AND ($3::text IS NULL OR tenant = $3::text)
  AND ($4::smallint IS NULL OR signal = $4::smallint)
  AND ($5::timestamptz IS NULL OR died_at >= $5::timestamptz)
  AND ($6::timestamptz IS NULL OR died_at < $6::timestamptz)
  AND id > $7::bigint
