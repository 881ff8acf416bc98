-- $1 batch ids. Those whose objects are not unknown, though the catalog names none of them: the batch waits or is being
-- written, or the sweeper is to look after what it left.
SELECT batch_id FROM ingestion_batch WHERE batch_id = ANY ($1::uuid[])
UNION
SELECT batch_id FROM abandoned_batch WHERE batch_id = ANY ($1::uuid[])
