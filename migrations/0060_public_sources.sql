-- A source whose write key is known to whoever opens a page or an app: what it says of traits does not stand against what others said.
ALTER TABLE source ADD COLUMN is_public boolean NOT NULL DEFAULT false;
