-- $1 lease token, $2 lease owner, $3 lease seconds, $4 most bytes, $5 most rows, $6 the largest payload that comes along.
-- One batch whose next attempt is due or whose holder let the lease run out, with its rows. The batch keeps its
-- id, and so its keys. A holder that vanished is counted; one that failed in the open is not.
-- statement_timestamp(), not clock_timestamp(): a volatile function is no condition for an index, and all failed
-- batches would be read each time.
WITH failed AS MATERIALIZED (
  SELECT batch_id FROM ingestion_batch
  WHERE status = 'failed' AND next_attempt_at <= statement_timestamp() AND bytes <= $4::bigint AND rows <= $5::int
  ORDER BY next_attempt_at LIMIT 1
  FOR UPDATE SKIP LOCKED
),
expired AS MATERIALIZED (
  SELECT batch_id FROM ingestion_batch
  WHERE status = 'processing' AND lease_until <= statement_timestamp() AND bytes <= $4::bigint AND rows <= $5::int
    AND NOT EXISTS (SELECT FROM failed)
  ORDER BY lease_until LIMIT 1
  FOR UPDATE SKIP LOCKED
),
taken AS (
  UPDATE ingestion_batch
  SET
    lease_token = $1::uuid,
    lease_owner = $2::text,
    lease_until = clock_timestamp() + $3::float8 * interval '1 second',
    takeovers = takeovers + (status = 'processing')::int,
    status = 'processing',
    next_attempt_at = NULL
  WHERE batch_id = ANY (ARRAY(SELECT batch_id FROM failed UNION ALL SELECT batch_id FROM expired))
  RETURNING batch_id, rows, attempts, outages, takeovers, last_error
)
SELECT
  taken.batch_id, taken.rows, taken.attempts, taken.outages, taken.takeovers, taken.last_error,
  queued.id, queued.signal, queued.tenant, queued.encoding, queued.items, queued.bytes, queued.request_id,
  queued.summary, CASE WHEN queued.bytes <= $6::int THEN queued.payload END AS payload
FROM taken
LEFT JOIN ingestion_queue AS queued ON queued.batch_id = (SELECT batch_id FROM taken)
ORDER BY queued.id
