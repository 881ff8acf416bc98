-- $1 batch id. After the second look.
DELETE FROM abandoned_batch WHERE batch_id = $1::uuid AND swept_at IS NOT NULL
