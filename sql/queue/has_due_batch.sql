-- Is there a batch to be taken over, of whatever size?
-- min() and not EXISTS: an EXISTS for which many rows are expected to do reads the table from its first page on.
SELECT coalesce(
  (SELECT min(next_attempt_at) FROM ingestion_batch WHERE status = 'failed') <= statement_timestamp(), false
) OR coalesce(
  (SELECT min(lease_until) FROM ingestion_batch WHERE status = 'processing') <= statement_timestamp(), false
) AS due
