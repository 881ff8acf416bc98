-- $1 batch id, $2 key. Asked at the moment of deleting: is this session the one that sweeps, is the key still one that
-- the batch left, and does nothing name it or could come to name it? After a failover or a restore the answer may be
-- another than a minute ago.
SELECT
  pg_try_advisory_lock(hashtext('sluice.sweeper')) AS is_locked,
  EXISTS (SELECT FROM abandoned_batch WHERE batch_id = $1::uuid AND $2::text = ANY (keys))
    AND NOT EXISTS (SELECT FROM stored_object WHERE key = $2::text)
    AND NOT EXISTS (SELECT FROM ingestion_batch WHERE batch_id = $1::uuid)
    AND NOT EXISTS (SELECT FROM ingestion_queue WHERE batch_id = $1::uuid) AS is_left_over
