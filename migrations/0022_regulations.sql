-- Regulations: who is to be forgotten, who is not to be heard of again, and what was done about it (docs/privacy.md).
CREATE TABLE regulation (
    space_id int NOT NULL REFERENCES space,
    regulation_id uuid NOT NULL,
    -- Segment's words, as domain::regulation has them.
    type text COLLATE "C" NOT NULL,
    subject_type text COLLATE "C" NOT NULL,
    -- How long identifiers of devices, which others may use too, stay suppressed.
    device_days int NOT NULL,
    actor_id text NOT NULL,
    actor_name text NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (space_id, regulation_id)
);
CREATE INDEX regulation_open ON regulation (space_id, regulation_id) WHERE finished_at IS NULL;

-- The people a regulation is about. What they are found by is here only until nothing is left of them.
CREATE TABLE regulation_subject (
    space_id int NOT NULL,
    regulation_id uuid NOT NULL,
    subject_no int NOT NULL,
    -- A keyed hash of what they were named by.
    id_hash bytea NOT NULL,
    id_key uuid,
    -- 0 waits, 1 what follows from the log is erased and the log is still gone through, 2 done.
    state smallint NOT NULL,
    -- Whom it was: an id that nobody has any more. Null where there was nobody.
    profile_id uuid,
    events bigint NOT NULL DEFAULT 0,
    keys uuid[],
    until_offset bigint,
    erased_at timestamptz,
    -- By the clock of the database: what others have taken by then is known.
    noted_at timestamptz,
    -- It is in the journal beside the database, which outlives a restore.
    journaled boolean NOT NULL DEFAULT false,
    PRIMARY KEY (space_id, regulation_id, subject_no)
);
CREATE INDEX regulation_subject_new ON regulation_subject (space_id, regulation_id) WHERE NOT journaled;
CREATE INDEX regulation_subject_open ON regulation_subject (space_id, regulation_id) WHERE state < 2;

-- What destinations made of it. `state`: 0 waits, 1 done there, 2 the destination does not take deletions, 3 refused.
CREATE TABLE regulation_receipt (
    space_id int NOT NULL,
    regulation_id uuid NOT NULL,
    subject_no int NOT NULL,
    destination_no int NOT NULL,
    delivery_no bigint NOT NULL,
    state smallint NOT NULL DEFAULT 0,
    code text,
    done_at timestamptz,
    PRIMARY KEY (space_id, regulation_id, subject_no, destination_no)
);
CREATE INDEX regulation_receipt_open ON regulation_receipt (space_id, regulation_id) WHERE state IN (0, 3);

-- The key of all hashes below, and a number that every change of them raises.
CREATE TABLE privacy_secret (
    space_id int PRIMARY KEY REFERENCES space,
    secret bytea NOT NULL,
    version bigint NOT NULL
);

-- Identifiers nothing new is taken of: keyed hashes, never the values. Those of one person go together.
CREATE TABLE suppression (
    space_id int NOT NULL,
    id_hash bytea NOT NULL,
    regulation_id uuid NOT NULL,
    subject_no int NOT NULL,
    id_type text COLLATE "C" NOT NULL,
    -- Of a device, which others may use too, until then.
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, id_hash)
);
CREATE INDEX suppression_of ON suppression (space_id, regulation_id, subject_no);

-- The journal of erasures: up to this offset, and of events that happened before that time, these identifiers are nobody's,
-- whatever is replayed, rebuilt, imported or restored.
CREATE TABLE erased_identifier (
    space_id int NOT NULL,
    id_hash bytea NOT NULL,
    until_offset bigint NOT NULL,
    erased_at timestamptz NOT NULL,
    regulation_id uuid NOT NULL,
    subject_no int NOT NULL,
    PRIMARY KEY (space_id, id_hash)
);
