-- $1 batch id, $2 lease token, $3 rows expected, $4 keys that may have been put, $5 reason, $6 attempts to count,
-- $7 error.
WITH fence AS (
  DELETE FROM ingestion_batch
  WHERE batch_id = $1::uuid AND lease_token = $2::uuid AND status = 'processing'
  RETURNING batch_id, attempts, first_error
),
gone AS (
  DELETE FROM ingestion_queue
  WHERE batch_id = (SELECT batch_id FROM fence)
  RETURNING
    id, received_at, batch_id, items, bytes, unpacked_bytes, signal, encoding, tenant, request_id, summary, payload
),
buried AS (
  INSERT INTO dead_letter (
    id, received_at, batch_id, items, bytes, unpacked_bytes, attempts, signal, encoding, tenant, request_id,
    reason, first_error, last_error, summary, payload
  )
  SELECT
    gone.id, gone.received_at, gone.batch_id, gone.items, gone.bytes, gone.unpacked_bytes,
    fence.attempts + $6::int, gone.signal, gone.encoding, gone.tenant, gone.request_id, $5::text,
    coalesce(fence.first_error, $7::text), $7::text, gone.summary, gone.payload
  FROM gone, fence
),
abandoned AS (
  INSERT INTO abandoned_batch (batch_id, keys) SELECT batch_id, $4::text[] FROM fence
)
SELECT settle_expects((SELECT count(*) FROM gone), $3::bigint, fence.batch_id)::int AS rows
FROM fence
