-- $1 batch id, $2 lease token, $3 attempts to count, $4 outages to count, $5 milliseconds until the next attempt,
-- $6 error. The batch stays the same set of rows.
UPDATE ingestion_batch
SET
  status = 'failed',
  attempts = attempts + $3::int,
  outages = outages + $4::int,
  takeovers = 0,
  next_attempt_at = clock_timestamp() + $5::float8 * interval '1 millisecond',
  first_error = coalesce(first_error, $6::text),
  last_error = $6::text
WHERE batch_id = $1::uuid AND lease_token = $2::uuid AND status = 'processing'
RETURNING rows
