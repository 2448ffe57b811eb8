-- How long a space keeps its events, in days; a space without a row keeps them as long as the service does. `swept` says up
-- to which day the log was gone through for the names whose events are kept for a shorter time.
CREATE TABLE retention (
    space_id int PRIMARY KEY REFERENCES space,
    days int,
    events jsonb NOT NULL,
    swept jsonb NOT NULL DEFAULT '{}'
);

-- The retention that a version counts under.
ALTER TABLE computation ADD COLUMN retention jsonb NOT NULL DEFAULT '{}';
