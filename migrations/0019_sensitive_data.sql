-- What a space does about sensitive data in events; a space without a row does what is the default.
CREATE TABLE sensitive_settings (
    space_id int PRIMARY KEY REFERENCES space,
    version bigint NOT NULL,
    -- By category; a category without an entry does what is the default.
    actions jsonb NOT NULL,
    patterns jsonb NOT NULL,
    -- What values are hashed with, so that a hash alone tells nobody what it was made of.
    hash_key bytea NOT NULL
);

-- What was found, where, and how often; never the value.
CREATE TABLE sensitive_finding (
    space_id int NOT NULL REFERENCES space,
    source_no int NOT NULL,
    what text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    occurrences bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, source_no, what, path, action)
);
