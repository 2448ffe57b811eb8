-- Whose a change was when it was made: `profile_no` is whose it is after all merges. `log_offset` is the event that made it,
-- where it was one. So what waits goes back to its profile when a merge is taken back.
ALTER TABLE delivery ADD COLUMN origin_no bigint, ADD COLUMN log_offset bigint;
UPDATE delivery SET origin_no = profile_no;
ALTER TABLE delivery ALTER COLUMN origin_no SET NOT NULL;
ALTER TABLE delivery_outcome ADD COLUMN origin_no bigint, ADD COLUMN log_offset bigint;
UPDATE delivery_outcome SET origin_no = profile_no;
ALTER TABLE delivery_outcome ALTER COLUMN origin_no SET NOT NULL;

-- Raised when rows of the queue are given to another profile, other than by a merge: the worker reads it anew.
ALTER TABLE destination_worker ADD COLUMN shuffled bigint NOT NULL DEFAULT 0;
