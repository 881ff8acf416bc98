-- Is there a batch to be taken over, of whatever size?
SELECT EXISTS (
  SELECT FROM ingestion_batch WHERE status = 'failed' AND next_attempt_at <= statement_timestamp()
) OR EXISTS (
  SELECT FROM ingestion_batch WHERE status = 'processing' AND lease_until <= statement_timestamp()
) AS due
