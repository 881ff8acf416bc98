-- $1 batch id, $2 lease token, $3 lease owner, $4 lease seconds, $5 most rows, $6 most bytes, $7 most unpacked bytes,
-- $8 whether the first row is taken whatever its size: a large one would wait for ever otherwise; $9 the largest payload that
-- comes along; $10 the lowest id.
-- MATERIALIZED: without the fence the planner may lock more rows than the limit. id = ANY(ARRAY(...)): a join becomes a sequential scan under a generic plan.
WITH candidate AS MATERIALIZED (
  SELECT id, bytes, unpacked_bytes
  FROM ingestion_queue
  WHERE batch_id IS NULL AND id >= $10::bigint
  ORDER BY id
  LIMIT $5::int
  FOR UPDATE SKIP LOCKED
),
due AS MATERIALIZED (
  SELECT id
  FROM (
    SELECT
      id,
      row_number() OVER running AS place,
      sum(bytes::bigint) OVER running AS bytes,
      sum(unpacked_bytes::bigint) OVER running AS unpacked_bytes
    FROM candidate
    WINDOW running AS (ORDER BY id ROWS UNBOUNDED PRECEDING)
  ) AS summed
  WHERE (place = 1 AND $8::boolean) OR (bytes <= $6::bigint AND unpacked_bytes <= $7::bigint)
),
claimed AS (
  UPDATE ingestion_queue
  SET batch_id = $1::uuid
  WHERE id = ANY (ARRAY(SELECT id FROM due))
  RETURNING id, signal, tenant, encoding, items, bytes, request_id, summary, payload
),
batch AS (
  INSERT INTO ingestion_batch (batch_id, lease_token, lease_owner, lease_until, claimed_at, status, rows, bytes)
  SELECT
    $1::uuid, $2::uuid, $3::text, clock_timestamp() + $4::float8 * interval '1 second', clock_timestamp(),
    'processing', count(*), sum(bytes)
  FROM claimed
  HAVING count(*) > 0
)
SELECT
  id, signal, tenant, encoding, items, bytes, request_id, summary,
  CASE WHEN bytes <= $9::int THEN payload END AS payload
FROM claimed
ORDER BY id
