-- $1 queue id, $2 first byte counted from 1, $3 most bytes.
-- The payload is stored as it is (STORAGE EXTERNAL), so only these bytes are read.
SELECT substring(payload FROM $2::int FOR $3::int) AS piece
FROM ingestion_queue
WHERE id = $1::bigint
