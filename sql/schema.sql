-- The schema after all migrations. Written by `make schema` from the catalogs of a database; not run by anything.

CREATE TABLE abandoned_batch (
  batch_id uuid NOT NULL,
  abandoned_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  swept_at timestamp with time zone,
  keys text[] NOT NULL,
  CONSTRAINT abandoned_batch_pkey PRIMARY KEY (batch_id)
);

CREATE INDEX abandoned_batch_age ON public.abandoned_batch USING btree (abandoned_at);

COMMENT ON TABLE abandoned_batch IS 'Keys that a batch may have put before it was split, released or buried; only the sweeper deletes them';

CREATE TABLE dead_letter (
  id bigint NOT NULL,
  received_at timestamp with time zone NOT NULL,
  died_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  batch_id uuid NOT NULL,
  items integer NOT NULL,
  bytes integer NOT NULL,
  unpacked_bytes integer NOT NULL,
  attempts integer NOT NULL,
  signal smallint NOT NULL,
  encoding smallint NOT NULL,
  tenant text NOT NULL,
  request_id text NOT NULL,
  reason text NOT NULL,
  first_error text,
  last_error text,
  summary bytea STORAGE EXTERNAL NOT NULL,
  payload bytea STORAGE EXTERNAL NOT NULL,
  CONSTRAINT dead_letter_pkey PRIMARY KEY (id)
);

CREATE INDEX dead_letter_batch ON public.dead_letter USING btree (batch_id);

COMMENT ON TABLE dead_letter IS 'Accepted requests that could not be stored for their own data, with the reason';

CREATE TABLE ingestion_batch (
  batch_id uuid NOT NULL,
  lease_token uuid NOT NULL,
  lease_until timestamp with time zone NOT NULL,
  next_attempt_at timestamp with time zone,
  claimed_at timestamp with time zone NOT NULL,
  bytes bigint NOT NULL,
  rows integer NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  outages integer NOT NULL DEFAULT 0,
  takeovers integer NOT NULL DEFAULT 0,
  status text NOT NULL,
  lease_owner text NOT NULL,
  first_error text,
  last_error text,
  CONSTRAINT ingestion_batch_failed_check CHECK (((status <> 'failed'::text) OR (next_attempt_at IS NOT NULL))),
  CONSTRAINT ingestion_batch_pkey PRIMARY KEY (batch_id),
  CONSTRAINT ingestion_batch_status_check CHECK ((status = ANY (ARRAY['processing'::text, 'failed'::text])))
)
WITH (
  autovacuum_vacuum_cost_delay=0,
  autovacuum_vacuum_scale_factor=0,
  autovacuum_vacuum_threshold=500,
  fillfactor=50,
  vacuum_truncate=off
);

CREATE INDEX ingestion_batch_due ON public.ingestion_batch USING btree (next_attempt_at) WHERE (status = 'failed'::text);
CREATE INDEX ingestion_batch_expired ON public.ingestion_batch USING btree (lease_until) WHERE (status = 'processing'::text);

COMMENT ON TABLE ingestion_batch IS 'One row per claimed batch: its lease, its retries, its errors';
COMMENT ON COLUMN ingestion_batch.attempts IS 'Failures that were the data''s own fault; counted for a batch of one row only';
COMMENT ON COLUMN ingestion_batch.outages IS 'Failures that were nobody''s fault; they stretch the backoff';
COMMENT ON COLUMN ingestion_batch.takeovers IS 'Holders that vanished without a word';

CREATE TABLE ingestion_queue (
  id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  received_at timestamp with time zone NOT NULL DEFAULT now(),
  batch_id uuid,
  items integer NOT NULL,
  bytes integer NOT NULL,
  unpacked_bytes integer NOT NULL,
  signal smallint NOT NULL,
  encoding smallint NOT NULL,
  tenant text NOT NULL,
  request_id text NOT NULL,
  summary bytea STORAGE EXTERNAL NOT NULL,
  payload bytea STORAGE EXTERNAL NOT NULL,
  CONSTRAINT ingestion_queue_encoding_check CHECK ((encoding = ANY (ARRAY[0, 1]))),
  CONSTRAINT ingestion_queue_pkey PRIMARY KEY (id),
  CONSTRAINT ingestion_queue_signal_check CHECK (((signal >= 1) AND (signal <= 4))),
  CONSTRAINT ingestion_queue_tenant_check CHECK ((tenant ~ '^[A-Za-z0-9_-]{1,64}$'::text))
)
WITH (
  autovacuum_vacuum_cost_delay=0,
  autovacuum_vacuum_insert_scale_factor=0,
  autovacuum_vacuum_insert_threshold=10000,
  autovacuum_vacuum_scale_factor=0,
  autovacuum_vacuum_threshold=1000,
  toast.autovacuum_vacuum_cost_delay=0,
  toast.autovacuum_vacuum_scale_factor=0,
  toast.autovacuum_vacuum_threshold=1000,
  toast.vacuum_truncate=off,
  vacuum_truncate=off
);

CREATE INDEX ingestion_queue_batch ON public.ingestion_queue USING btree (batch_id) WHERE (batch_id IS NOT NULL);
CREATE INDEX ingestion_queue_pending ON public.ingestion_queue USING btree (id) WHERE (batch_id IS NULL);

COMMENT ON TABLE ingestion_queue IS 'One row per accepted request: written once, updated at the claim, deleted when stored';

CREATE TABLE schema_migration (
  name text NOT NULL,
  checksum text NOT NULL,
  applied_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT schema_migration_pkey PRIMARY KEY (name)
);

COMMENT ON TABLE schema_migration IS 'Which files of sql/migrations were applied, and the SHA-256 of their text';

CREATE TABLE stored_object (
  object_id uuid NOT NULL,
  batch_id uuid NOT NULL,
  stored_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  min_time timestamp with time zone,
  max_time timestamp with time zone,
  items bigint NOT NULL,
  bytes bigint NOT NULL,
  requests integer NOT NULL,
  signal smallint NOT NULL,
  encoding smallint NOT NULL,
  tenant text NOT NULL,
  bucket text NOT NULL,
  key text NOT NULL,
  checksum text NOT NULL,
  services text[] NOT NULL,
  queue_ids bigint[] NOT NULL,
  offsets integer[] NOT NULL,
  CONSTRAINT stored_object_key_unique UNIQUE (key),
  CONSTRAINT stored_object_pkey PRIMARY KEY (object_id),
  CONSTRAINT stored_object_requests_check CHECK (((requests > 0) AND (cardinality(queue_ids) = requests) AND (cardinality(offsets) = requests)))
);

CREATE INDEX stored_object_batch ON public.stored_object USING btree (batch_id);
CREATE INDEX stored_object_stored_at ON public.stored_object USING btree (stored_at);

COMMENT ON TABLE stored_object IS 'One row per object: where it is, what it holds, and where each request in it starts';
COMMENT ON COLUMN stored_object.offsets IS 'Bytes from the start of the object, as stored, to the start of each request';

CREATE TABLE trace_index (
  trace_hash bigint NOT NULL,
  object_id uuid NOT NULL,
  request_no smallint NOT NULL
) PARTITION BY RANGE (object_id);

CREATE INDEX trace_index_hash ON ONLY public.trace_index USING brin (trace_hash int8_bloom_ops) WITH (pages_per_range='16', autosummarize='on');

COMMENT ON TABLE trace_index IS 'Which request of which object may hold spans of a trace; a hash may belong to several traces';
COMMENT ON COLUMN trace_index.request_no IS 'Index into stored_object.offsets, from 0';

CREATE VIEW ingestion_queue_status AS
 SELECT q.id,
    q.signal,
    q.tenant,
    q.request_id,
    q.received_at,
    q.items,
    q.bytes,
    q.batch_id,
        CASE
            WHEN (q.batch_id IS NULL) THEN 'pending'::text
            ELSE b.status
        END AS status,
    COALESCE(b.attempts, 0) AS attempts,
    COALESCE(b.outages, 0) AS outages,
    b.next_attempt_at,
    b.lease_owner,
    b.lease_until,
    b.first_error,
    b.last_error
   FROM (ingestion_queue q
     LEFT JOIN ingestion_batch b USING (batch_id));

COMMENT ON VIEW ingestion_queue_status IS 'Each staged row with its status: pending, processing or failed';

CREATE OR REPLACE FUNCTION public.ensure_trace_index_partition(day date)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
DECLARE
  name text := 'trace_index_' || to_char(day, 'YYYYMMDD');
  lower_bound text := lpad(to_hex((extract(epoch FROM day::timestamp) * 1000)::bigint), 12, '0');
  upper_bound text := lpad(to_hex((extract(epoch FROM (day + 1)::timestamp) * 1000)::bigint), 12, '0');
BEGIN
  IF to_regclass(name) IS NOT NULL THEN RETURN; END IF;
  PERFORM pg_advisory_xact_lock(hashtext('sluice.trace_index_partition'));
  IF to_regclass(name) IS NOT NULL THEN RETURN; END IF;
  EXECUTE format(
    'CREATE TABLE IF NOT EXISTS %I PARTITION OF trace_index FOR VALUES FROM (%L) TO (%L)',
    name,
    substr(lower_bound, 1, 8) || '-' || substr(lower_bound, 9, 4) || '-0000-0000-000000000000',
    substr(upper_bound, 1, 8) || '-' || substr(upper_bound, 9, 4) || '-0000-0000-000000000000'
  );
END
$function$;

CREATE OR REPLACE FUNCTION public.settle_expects(actual bigint, expected bigint, batch uuid)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF actual IS DISTINCT FROM expected THEN
    RAISE EXCEPTION 'batch % holds % rows where % were expected', batch, actual, expected
      USING ERRCODE = 'SL001';
  END IF;
  RETURN actual;
END
$function$;

CREATE OR REPLACE FUNCTION public.settle_requires_lease(is_held boolean, batch uuid)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF NOT is_held THEN
    RAISE EXCEPTION 'batch % is held under another lease, or was settled', batch USING ERRCODE = 'SL002';
  END IF;
END
$function$;
