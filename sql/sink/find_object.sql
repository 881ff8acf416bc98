-- $1 key.
SELECT bucket, key, signal, encoding, bytes, to_jsonb(offsets) AS offsets FROM stored_object WHERE key = $1::text
