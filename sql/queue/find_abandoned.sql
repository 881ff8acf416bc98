-- $1 seconds that a look must lie back, $2 the most batches, $3 the batch id after which to go on. Keys of split,
-- released and buried batches that are due for a look, without those that the catalog names. A batch is looked at
-- twice: a late put may land between.
SELECT abandoned.batch_id, abandoned.swept_at IS NOT NULL AS second_look, to_jsonb(ARRAY(
  SELECT key FROM unnest(abandoned.keys) AS named (key)
  WHERE NOT EXISTS (SELECT FROM stored_object AS object WHERE object.key = named.key)
  ORDER BY key
)) AS keys
FROM abandoned_batch AS abandoned
WHERE coalesce(abandoned.swept_at, abandoned.abandoned_at) <= clock_timestamp() - $1::float8 * interval '1 second'
  AND abandoned.batch_id > $3::uuid
ORDER BY abandoned.batch_id
LIMIT $2::int
