-- Refused values on their way to quarantine: the profiles each was refused to, eight bytes a number, up to the threshold of
-- the settings. A value in quarantine needs none of them, and one an operator let out of it is left alone for good.
CREATE TABLE identity_suspect (
    space_id int NOT NULL,
    id_key uuid NOT NULL,
    type text NOT NULL,
    value text NOT NULL,
    profiles bytea NOT NULL,
    quarantined_at timestamptz,
    exempt boolean NOT NULL,
    PRIMARY KEY (space_id, id_key)
) WITH (fillfactor = 70);
CREATE INDEX identity_suspect_quarantined ON identity_suspect (space_id, quarantined_at, id_key)
    WHERE quarantined_at IS NOT NULL;

ALTER TABLE identity_settings ADD COLUMN quarantine_threshold int NOT NULL DEFAULT 20;

-- What identity_problem adds up to, by rule: kept with it, because nothing is counted on request.
CREATE TABLE identity_rule (
    space_id int NOT NULL,
    rule text NOT NULL,
    ids bigint NOT NULL,
    occurrences bigint NOT NULL,
    PRIMARY KEY (space_id, rule)
) WITH (fillfactor = 70);
INSERT INTO identity_rule
SELECT space_id, rule, count(*), sum(occurrences)::bigint FROM identity_problem GROUP BY space_id, rule;
