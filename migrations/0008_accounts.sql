-- Whose profiles a definition is about: 0 users, 1 accounts. Never changes.
ALTER TABLE definition ADD COLUMN collection smallint NOT NULL DEFAULT 0;
