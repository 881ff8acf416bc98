-- $1 batch id, $2 lease token, $3 rows expected, $4 catalog rows as JSON. The entries of the trace index were copied just
-- before, in this transaction; so a fence that matches nothing ends it.
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
)
SELECT
  settle_requires_lease(EXISTS (SELECT FROM fence), $1::uuid),
  settle_expects((SELECT count(*) FROM settled), $3::bigint, $1::uuid)::int AS rows
