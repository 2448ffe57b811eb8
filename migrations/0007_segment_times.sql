-- A scan leaves out the sections that are older than what it looks for. Those there are say nothing of it: they are made
-- again.
TRUNCATE log_segment, log_section, log_column;
ALTER TABLE log_section ADD COLUMN newest_at bigint NOT NULL;
