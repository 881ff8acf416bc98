-- The staging queue: what ingress commits before it answers 200, and what the relay moves on.

CREATE TABLE ingestion_queue (
  -- Widest first, so that no padding is stored between the fixed-width columns.
  id             bigint GENERATED ALWAYS AS IDENTITY,
  -- now(), not clock_timestamp(): COPY inserts one by one where a column has a volatile default.
  received_at    timestamptz NOT NULL DEFAULT now(),
  batch_id       uuid,
  items          integer NOT NULL,
  bytes          integer NOT NULL,
  unpacked_bytes integer NOT NULL,
  signal         smallint NOT NULL,
  encoding       smallint NOT NULL,
  tenant         text NOT NULL,
  request_id     text NOT NULL,
  summary        bytea NOT NULL,
  payload        bytea NOT NULL,
  CONSTRAINT ingestion_queue_pkey PRIMARY KEY (id),
  CONSTRAINT ingestion_queue_signal_check CHECK (signal BETWEEN 1 AND 4),
  CONSTRAINT ingestion_queue_encoding_check CHECK (encoding IN (0, 1)),
  CONSTRAINT ingestion_queue_tenant_check CHECK (tenant ~ '^[A-Za-z0-9_-]{1,64}$')
);

COMMENT ON TABLE ingestion_queue IS 'One row per accepted request: written once, updated at the claim, deleted when stored';

-- Payloads are compressed already or are wanted as they are: compressing them again costs CPU for nothing.
ALTER TABLE ingestion_queue ALTER COLUMN payload SET STORAGE EXTERNAL;
ALTER TABLE ingestion_queue ALTER COLUMN summary SET STORAGE EXTERNAL;

-- Rows die as fast as they come. Without this, dead entries at the head of the index slow every claim.
ALTER TABLE ingestion_queue SET (
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_insert_scale_factor = 0,
  autovacuum_vacuum_insert_threshold = 10000,
  autovacuum_vacuum_cost_delay = 0,
  vacuum_truncate = off,
  toast.autovacuum_vacuum_scale_factor = 0,
  toast.autovacuum_vacuum_threshold = 1000,
  toast.autovacuum_vacuum_cost_delay = 0,
  toast.vacuum_truncate = off
);

CREATE INDEX ingestion_queue_pending ON ingestion_queue (id) WHERE batch_id IS NULL;
CREATE INDEX ingestion_queue_batch ON ingestion_queue (batch_id) WHERE batch_id IS NOT NULL;

CREATE TABLE ingestion_batch (
  batch_id        uuid NOT NULL,
  lease_token     uuid NOT NULL,
  lease_until     timestamptz NOT NULL,
  next_attempt_at timestamptz,
  claimed_at      timestamptz NOT NULL,
  bytes           bigint NOT NULL,
  rows            integer NOT NULL,
  attempts        integer NOT NULL DEFAULT 0,
  outages         integer NOT NULL DEFAULT 0,
  takeovers       integer NOT NULL DEFAULT 0,
  status          text NOT NULL,
  lease_owner     text NOT NULL,
  first_error     text,
  last_error      text,
  CONSTRAINT ingestion_batch_pkey PRIMARY KEY (batch_id),
  CONSTRAINT ingestion_batch_status_check CHECK (status IN ('processing', 'failed')),
  CONSTRAINT ingestion_batch_failed_check CHECK (status <> 'failed' OR next_attempt_at IS NOT NULL)
);

COMMENT ON TABLE ingestion_batch IS 'One row per claimed batch: its lease, its retries, its errors';
COMMENT ON COLUMN ingestion_batch.attempts IS 'Failures that were the data''s own fault; counted for a batch of one row only';
COMMENT ON COLUMN ingestion_batch.outages IS 'Failures that were nobody''s fault; they stretch the backoff';
COMMENT ON COLUMN ingestion_batch.takeovers IS 'Holders that vanished without a word';

ALTER TABLE ingestion_batch SET (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 500,
  autovacuum_vacuum_cost_delay = 0,
  vacuum_truncate = off
);

CREATE INDEX ingestion_batch_expired ON ingestion_batch (lease_until) WHERE status = 'processing';
CREATE INDEX ingestion_batch_due ON ingestion_batch (next_attempt_at) WHERE status = 'failed';

CREATE VIEW ingestion_queue_status AS
SELECT
  q.id, q.signal, q.tenant, q.request_id, q.received_at, q.items, q.bytes, q.batch_id,
  CASE WHEN q.batch_id IS NULL THEN 'pending' ELSE b.status END AS status,
  coalesce(b.attempts, 0) AS attempts,
  coalesce(b.outages, 0) AS outages,
  b.next_attempt_at, b.lease_owner, b.lease_until, b.first_error, b.last_error
FROM ingestion_queue q
LEFT JOIN ingestion_batch b USING (batch_id);

COMMENT ON VIEW ingestion_queue_status IS 'Each staged row with its status: pending, processing or failed';

CREATE TABLE dead_letter (
  id             bigint NOT NULL,
  received_at    timestamptz NOT NULL,
  died_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  batch_id       uuid NOT NULL,
  items          integer NOT NULL,
  bytes          integer NOT NULL,
  unpacked_bytes integer NOT NULL,
  attempts       integer NOT NULL,
  signal         smallint NOT NULL,
  encoding       smallint NOT NULL,
  tenant         text NOT NULL,
  request_id     text NOT NULL,
  reason         text NOT NULL,
  first_error    text,
  last_error     text,
  summary        bytea NOT NULL,
  payload        bytea NOT NULL,
  CONSTRAINT dead_letter_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE dead_letter IS 'Accepted requests that could not be stored for their own data, with the reason';
CREATE INDEX dead_letter_batch ON dead_letter (batch_id);
ALTER TABLE dead_letter ALTER COLUMN payload SET STORAGE EXTERNAL;
ALTER TABLE dead_letter ALTER COLUMN summary SET STORAGE EXTERNAL;

CREATE TABLE abandoned_batch (
  batch_id     uuid NOT NULL,
  abandoned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  swept_at     timestamptz,
  keys         text[] NOT NULL,
  CONSTRAINT abandoned_batch_pkey PRIMARY KEY (batch_id)
);

COMMENT ON TABLE abandoned_batch IS 'Keys that a batch may have put before it was split, released or buried; only the sweeper deletes them';
CREATE INDEX abandoned_batch_age ON abandoned_batch (abandoned_at);

-- A DELETE in a CTE takes effect even where the statement's other half matches nothing. A settle that finds
-- another number of rows than it wrote must therefore end the whole statement.
CREATE FUNCTION settle_expects(actual bigint, expected bigint, batch uuid) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
  IF actual IS DISTINCT FROM expected THEN
    RAISE EXCEPTION 'batch % holds % rows where % were expected', batch, actual, expected
      USING ERRCODE = 'SL001';
  END IF;
  RETURN actual;
END
$$;
