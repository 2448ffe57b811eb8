-- A batch that is not full waits for more until its oldest change is this old; 0: it is sent at once.
ALTER TABLE destination ADD COLUMN linger_seconds int NOT NULL DEFAULT 0;
UPDATE destination SET linger_seconds = CASE kind WHEN 'file' THEN 30 ELSE 5 END WHERE kind IN ('file', 'postgres');
