-- Lists of profiles by when they were seen last. An index on last_seen_at itself would have an entry written by every
-- event: the ten minutes it falls into change rarely, so updates of a profile still leave all indexes alone. Generated,
-- so that a process of the release before fills it as well.
ALTER TABLE profile ADD COLUMN seen_slot int NOT NULL
    GENERATED ALWAYS AS (floor(date_part('epoch', last_seen_at AT TIME ZONE 'UTC') / 600)::int) STORED;
CREATE INDEX profile_seen ON profile (space_id, collection, seen_slot, profile_no) WHERE merged_into IS NULL;

-- Identifiers by how they begin; 64 characters, because values may be too long for an index.
CREATE INDEX external_id_start ON external_id (space_id, type_no, (left(value, 64) COLLATE "C"), profile_no);
