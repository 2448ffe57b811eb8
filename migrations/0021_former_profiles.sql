-- Profiles that a rebuild by other settings makes no more: whom their public ids mean since. An id that was ever given out
-- is never nobody's.
CREATE TABLE former_profile (
    space_id int NOT NULL,
    profile_id uuid NOT NULL,
    profile_no bigint NOT NULL,
    PRIMARY KEY (space_id, profile_id)
);
