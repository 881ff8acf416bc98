-- True if this session is now the only one that sweeps, or was so already. Ends with the session at the latest.
SELECT pg_try_advisory_lock(hashtext('sluice.sweeper')) AS is_locked
