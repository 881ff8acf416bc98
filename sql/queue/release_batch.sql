-- $1 batch id, $2 lease token, $3 rows expected, $4 keys that may have been put. The rows are pending again.
WITH fence AS (
  DELETE FROM ingestion_batch
  WHERE batch_id = $1::uuid AND lease_token = $2::uuid AND status = 'processing'
  RETURNING batch_id
),
freed AS (
  UPDATE ingestion_queue SET batch_id = NULL WHERE batch_id = (SELECT batch_id FROM fence) RETURNING id
),
abandoned AS (
  INSERT INTO abandoned_batch (batch_id, keys) SELECT batch_id, $4::text[] FROM fence
)
SELECT settle_expects((SELECT count(*) FROM freed), $3::bigint, fence.batch_id)::int AS rows
FROM fence
