-- A rebuild: everything that follows from a space's log, derived again in the schema rebuild_<space_id> beside what is
-- live. While there is one, no chunks of the space are joined and no week of the log is dropped. `fingerprint` is of the
-- definitions and settings it began with, `log_start` where the log began then. `touched_at` says that somebody is still at
-- it: one that nobody has been at for a day counts no longer, and is not taken up again.
CREATE TABLE rebuild (
    space_id int PRIMARY KEY REFERENCES space,
    fingerprint text NOT NULL,
    log_start bigint NOT NULL,
    started_at timestamptz NOT NULL,
    touched_at timestamptz NOT NULL
);
