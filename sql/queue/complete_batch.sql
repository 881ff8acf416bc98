-- $1 batch id, $2 lease token, $3 rows expected, $4 catalog rows as JSON, $5 object ids, and the trace index as
-- three parallel arrays: $6 hashes, $7 place of the object in $5 from 1, $8 number of the request in the object.
-- Everything hangs on the fence; a DELETE in a CTE takes effect even where the INSERTs beside it insert nothing.
WITH fence AS (
  DELETE FROM ingestion_batch
  WHERE batch_id = $1::uuid AND lease_token = $2::uuid AND status = 'processing'
  RETURNING batch_id
),
settled AS (
  DELETE FROM ingestion_queue WHERE batch_id = (SELECT batch_id FROM fence) RETURNING id
),
stored AS (
  INSERT INTO stored_object (
    object_id, batch_id, min_time, max_time, items, bytes, requests, signal, encoding, tenant, bucket, key,
    checksum, services, queue_ids, offsets
  )
  SELECT
    o.object_id, fence.batch_id, o.min_time, o.max_time, o.items, o.bytes, o.requests, o.signal, o.encoding,
    o.tenant, o.bucket, o.key, o.checksum, o.services, o.queue_ids, o.offsets
  FROM fence, jsonb_to_recordset($4::jsonb) AS o (
    object_id uuid, min_time timestamptz, max_time timestamptz, items bigint, bytes bigint, requests int,
    signal smallint, encoding smallint, tenant text, bucket text, key text, checksum text, services text[],
    queue_ids bigint[], offsets int[]
  )
),
indexed AS (
  INSERT INTO trace_index (trace_hash, object_id, request_no)
  SELECT t.trace_hash, ($5::uuid[])[t.object_place], t.request_no
  FROM fence, unnest($6::bigint[], $7::int[], $8::smallint[]) AS t (trace_hash, object_place, request_no)
)
SELECT
  settle_expects((SELECT count(*) FROM settled), $3::bigint, fence.batch_id)::int AS rows
FROM fence
