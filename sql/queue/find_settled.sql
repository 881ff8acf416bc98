-- $1 batch id. Does the catalog or a dead letter name the batch?
SELECT
  EXISTS (SELECT FROM stored_object WHERE batch_id = $1::uuid)
  OR EXISTS (SELECT FROM dead_letter WHERE batch_id = $1::uuid) AS settled
