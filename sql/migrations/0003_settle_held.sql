-- The trace index is copied in front of the settle, in its transaction, because COPY takes a third of the time that INSERT
-- takes. A settle whose fence matches nothing must therefore end the transaction.
CREATE FUNCTION settle_requires_lease(is_held boolean, batch uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF NOT is_held THEN
    RAISE EXCEPTION 'batch % is held under another lease, or was settled', batch USING ERRCODE = 'SL002';
  END IF;
END
$$;
