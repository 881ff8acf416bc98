-- However often it was locked: each deletion asks again.
SELECT pg_advisory_unlock_all()
