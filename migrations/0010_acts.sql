-- Merges made and taken back by operators. `manual` ones were made by an act, not by an event.
ALTER TABLE profile_merge ADD COLUMN manual boolean NOT NULL DEFAULT false;
ALTER TABLE profile_merge ADD COLUMN undone_at timestamptz;

-- What operators did: one row for each act of the log, written in the transaction that does it.
CREATE TABLE audit_entry (
    space_id int NOT NULL,
    log_offset bigint NOT NULL,
    at timestamptz NOT NULL,
    action text NOT NULL,
    actor_id text NOT NULL,
    actor_name text NOT NULL,
    -- What was asked for, and what became of it.
    act jsonb NOT NULL,
    effect jsonb NOT NULL,
    PRIMARY KEY (space_id, log_offset)
);

-- Stretches of the log whose segments were forgotten, because their events belong to other profiles now: behind
-- `after_offset`, up to `end_offset`. They get segments again when there is time.
CREATE TABLE segment_gap (
    space_id int NOT NULL,
    after_offset bigint NOT NULL,
    end_offset bigint NOT NULL,
    PRIMARY KEY (space_id, after_offset)
);

CREATE INDEX profile_merge_id ON profile_merge (space_id, merge_id);
CREATE INDEX profile_merge_undone ON profile_merge (space_id, absorbed_no) WHERE undone_at IS NOT NULL;
