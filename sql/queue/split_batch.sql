-- $1 batch id, $2 lease token, $3 rows expected, $4 and $5 ids of the halves, $6 keys that may have been put,
-- $7 error. The halves are due at once.
WITH fence AS (
  DELETE FROM ingestion_batch
  WHERE batch_id = $1::uuid AND lease_token = $2::uuid AND status = 'processing'
  RETURNING batch_id, lease_owner, first_error
),
placed AS MATERIALIZED (
  SELECT id, row_number() OVER (ORDER BY id) AS place
  FROM ingestion_queue
  WHERE batch_id = (SELECT batch_id FROM fence)
),
moved AS (
  UPDATE ingestion_queue AS queued
  SET batch_id = CASE WHEN placed.place <= ($3::int + 1) / 2 THEN $4::uuid ELSE $5::uuid END
  FROM placed
  WHERE queued.id = placed.id
  RETURNING queued.batch_id, queued.bytes
),
halves AS (
  INSERT INTO ingestion_batch (
    batch_id, lease_token, lease_owner, lease_until, claimed_at, status, next_attempt_at, rows, bytes,
    first_error, last_error
  )
  SELECT
    moved.batch_id, gen_random_uuid(), fence.lease_owner, clock_timestamp(), clock_timestamp(), 'failed',
    clock_timestamp(), count(*), sum(moved.bytes), coalesce(fence.first_error, $7::text), $7::text
  FROM fence, moved
  GROUP BY moved.batch_id, fence.lease_owner, fence.first_error
),
abandoned AS (
  INSERT INTO abandoned_batch (batch_id, keys) SELECT batch_id, $6::text[] FROM fence
)
SELECT settle_expects((SELECT count(*) FROM moved), $3::bigint, fence.batch_id)::int AS rows
FROM fence
