-- What was agreed about a space: outside its term, and unless it is in trial or active, it takes no events. A row per
-- space already, so the plan is part of it: a process of the release before makes spaces that are active without end.
ALTER TABLE space
    ADD COLUMN plan_state text NOT NULL DEFAULT 'active'
        CHECK (plan_state IN ('trial', 'active', 'suspended', 'ended')),
    ADD COLUMN plan_starts_at timestamptz,
    ADD COLUMN plan_ends_at timestamptz,
    ADD CONSTRAINT space_plan_term CHECK (plan_starts_at < plan_ends_at);

-- Events a second a source may send to each process; null is no limit.
ALTER TABLE source
    ADD COLUMN events_per_second_max int CHECK (events_per_second_max > 0);
