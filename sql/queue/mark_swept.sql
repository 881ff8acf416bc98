-- $1 batch id. After the first look.
UPDATE abandoned_batch SET swept_at = clock_timestamp() WHERE batch_id = $1::uuid AND swept_at IS NULL
