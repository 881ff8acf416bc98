-- $1 batch ids, $2 their lease tokens, $3 lease seconds. Answers the batches that are still held.
-- ANY besides the join: nothing known of the table, the planner would read every batch that is being written.
UPDATE ingestion_batch AS batch
SET lease_until = clock_timestamp() + $3::float8 * interval '1 second'
FROM unnest($1::uuid[], $2::uuid[]) AS held (batch_id, lease_token)
WHERE batch.batch_id = ANY ($1::uuid[])
  AND batch.batch_id = held.batch_id AND batch.lease_token = held.lease_token AND batch.status = 'processing'
RETURNING batch.batch_id
