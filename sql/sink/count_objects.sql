-- $1 stored at or after, or null, $2 stored before.
SELECT count(*) AS objects, coalesce(sum(bytes), 0)::bigint AS bytes
FROM stored_object
WHERE ($1::timestamptz IS NULL OR stored_at >= $1::timestamptz) AND stored_at < $2::timestamptz
