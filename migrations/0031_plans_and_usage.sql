-- More of what was agreed about a space. `plan_ended_at` is when it was ended, which its export window begins with;
-- `plan_purge_at` is when somebody asked for its purge, and `plan_collects` lets plain events in although it has ended.
ALTER TABLE space
    ADD COLUMN plan_reason text,
    ADD COLUMN plan_ended_at timestamptz,
    ADD COLUMN plan_purge_at timestamptz,
    ADD COLUMN plan_export_days int NOT NULL DEFAULT 30 CHECK (plan_export_days BETWEEN 0 AND 3650),
    ADD COLUMN plan_collects boolean NOT NULL DEFAULT false,
    -- Null is no limit.
    ADD COLUMN plan_events_per_month_max bigint CHECK (plan_events_per_month_max > 0),
    ADD COLUMN plan_events_per_second_max int CHECK (plan_events_per_second_max > 0),
    ADD COLUMN plan_profiles_max bigint CHECK (plan_profiles_max > 0),
    ADD COLUMN plan_audiences_max bigint CHECK (plan_audiences_max > 0),
    ADD COLUMN plan_computed_traits_max bigint CHECK (plan_computed_traits_max > 0);

-- What is over was only locked until now, and nobody was told of a purge: its export window begins with this upgrade, not
-- with the end of its term.
UPDATE space SET plan_state = 'ended', plan_ended_at = now() WHERE plan_state = 'ended' OR plan_ends_at <= now();

-- Events taken, by the month (UTC) they were received in. Counted in the statement that appends them to the log, so it says
-- neither more nor less than what was taken.
CREATE TABLE usage_month (
    space_id int NOT NULL,
    month date NOT NULL,
    events bigint NOT NULL,
    PRIMARY KEY (space_id, month)
) WITH (fillfactor = 50);

-- What a purge found and deleted: all that is kept of a space. No number of a space is given twice.
CREATE TABLE purge_report (
    space_id int PRIMARY KEY,
    key text NOT NULL,
    name text NOT NULL,
    begun_at timestamptz NOT NULL,
    purged_at timestamptz,
    report jsonb NOT NULL
);
