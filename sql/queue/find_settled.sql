-- $1 batch id. Does the catalog name the batch?
SELECT EXISTS (SELECT FROM stored_object WHERE batch_id = $1::uuid) AS settled
