-- $1 keys as a JSON array. Those that the catalog names.
SELECT object.key
FROM jsonb_array_elements_text($1::text::jsonb) AS listed (key)
JOIN stored_object AS object USING (key)
