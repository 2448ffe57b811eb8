-- A scan leaves out the sections that are older than what it looks for. Those there are say nothing of it: they are made
-- again.
TRUNCATE log_segment, log_section, log_column;
ALTER TABLE log_section ADD COLUMN newest_at bigint NOT NULL;
-- Scans have to know who was absorbed: a few among many profiles.
CREATE INDEX profile_absorbed ON profile (space_id, profile_no) INCLUDE (merged_into) WHERE merged_into IS NOT NULL;
