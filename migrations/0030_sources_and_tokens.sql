-- Pages a source's events may come from; null is any.
ALTER TABLE source ADD COLUMN allowed_origins text[];
-- The instant a write key stops working, so that clients can change over to another one until then; null is none.
ALTER TABLE write_key ADD COLUMN expires_at timestamptz;
-- Made before personal data had a scope of its own: such tokens go on seeing what they saw.
UPDATE access_token SET scopes = array_append(scopes, 'pii:read')
WHERE 'read' = ANY (scopes) AND NOT 'pii:read' = ANY (scopes);
UPDATE access_token SET scopes = array_append(scopes, 'privacy') WHERE space_id = 0 AND NOT 'privacy' = ANY (scopes);
UPDATE registry SET version = version + 1;
