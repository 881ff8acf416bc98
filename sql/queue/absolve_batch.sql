-- $1 batch id. Said by a holder that lost its lease and is alive all the same: it was slow or cut off, it did not
-- vanish, so the batch is no more suspect than before.
UPDATE ingestion_batch SET takeovers = takeovers - 1 WHERE batch_id = $1::uuid AND takeovers > 0
