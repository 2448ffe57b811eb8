-- The first schema. Rules (docs/adr/0002): every key begins with space_id, no triggers, no defaults that read the
-- clock in the data path, nothing that needs a row of another space. `space_id` is a small number; clients see
-- the space's `key`. Times operators look at are timestamptz, times the engine computes with are milliseconds.

CREATE TABLE space (
    space_id int PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE,
    name text NOT NULL,
    created_at timestamptz NOT NULL
);

-- One row. Every change of spaces, sources, keys or tokens raises it, so that all processes reload within a second.
CREATE TABLE registry (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version bigint NOT NULL
);
INSERT INTO registry (version) VALUES (1);

-- The instant of a server under --test-clock, so that a restart never goes back.
CREATE TABLE test_clock (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    now_ms bigint NOT NULL
);

CREATE TABLE source (
    space_id int NOT NULL REFERENCES space,
    source_no int NOT NULL,
    source_id uuid NOT NULL,
    name text NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, source_no)
);

-- Write keys are kept as SHA-256 hashes; `prefix` is what an operator recognises one by.
CREATE TABLE write_key (
    space_id int NOT NULL,
    key_hash bytea NOT NULL,
    source_no int NOT NULL,
    prefix text NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    last_used_at timestamptz,
    PRIMARY KEY (space_id, key_hash),
    FOREIGN KEY (space_id, source_no) REFERENCES source (space_id, source_no)
);

-- space_id 0 is the server's owner: all scopes in all spaces.
CREATE TABLE access_token (
    space_id int NOT NULL,
    token_hash bytea NOT NULL,
    token_id uuid NOT NULL,
    name text NOT NULL,
    prefix text NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    PRIMARY KEY (space_id, token_hash)
);

-- The end of a space's log. Its row lock is the sequencer: offsets are dense and commit order is log order.
CREATE TABLE log_head (
    space_id int PRIMARY KEY REFERENCES space,
    end_offset bigint NOT NULL DEFAULT 0,
    last_day date NOT NULL DEFAULT '1970-01-01'
);

-- The log. One row is one flush: `event_count` events ending at `end_offset`, zstd-compressed records.
CREATE TABLE event_chunk (
    space_id int NOT NULL,
    end_offset bigint NOT NULL,
    day date NOT NULL,
    event_count int NOT NULL,
    received_at timestamptz NOT NULL,
    names text[],
    min_at bigint NOT NULL,
    max_at bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (space_id, end_offset, day)
) PARTITION BY RANGE (day);
ALTER TABLE event_chunk ALTER COLUMN body SET STORAGE EXTERNAL;

-- What the processor made of a chunk: the profile number of each of its events, a few bytes each.
CREATE TABLE chunk_outcome (
    space_id int NOT NULL,
    end_offset bigint NOT NULL,
    day date NOT NULL,
    duplicates int NOT NULL,
    numbers bytea NOT NULL,
    PRIMARY KEY (space_id, end_offset, day)
) PARTITION BY RANGE (day);

-- The lease, the log position and the counters of a space's processor: updated by every micro-batch in its own
-- transaction `where epoch = … and processed_offset = …`; no row updated means fenced.
CREATE TABLE processor (
    space_id int PRIMARY KEY REFERENCES space,
    owner uuid,
    epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    processed_offset bigint NOT NULL DEFAULT 0,
    last_profile_no bigint NOT NULL DEFAULT 0,
    last_transition_no bigint NOT NULL DEFAULT 0,
    last_leaf_no int NOT NULL DEFAULT 0,
    -- Raised by every change of definitions or identity settings: the processor reloads before its next batch.
    config_version bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    unidentified bigint NOT NULL DEFAULT 0,
    users bigint NOT NULL DEFAULT 0,
    accounts bigint NOT NULL DEFAULT 0,
    merges bigint NOT NULL DEFAULT 0
);

-- Message ids older than the in-memory window: sorted runs of (hash, offset), found through a filter per run.
CREATE TABLE message_run (
    space_id int NOT NULL,
    run_no int NOT NULL,
    first_offset bigint NOT NULL,
    last_offset bigint NOT NULL,
    entries int NOT NULL,
    filter bytea NOT NULL,
    PRIMARY KEY (space_id, run_no)
);
ALTER TABLE message_run ALTER COLUMN filter SET STORAGE EXTERNAL;
CREATE TABLE message_page (
    space_id int NOT NULL,
    run_no int NOT NULL,
    page_no int NOT NULL,
    entries bytea NOT NULL,
    PRIMARY KEY (space_id, run_no, page_no)
);
ALTER TABLE message_page ALTER COLUMN entries SET STORAGE EXTERNAL;

-- A person or an account. Everything the engine knows of it is `state`, one compact versioned blob.
CREATE TABLE profile (
    space_id int NOT NULL,
    profile_no bigint NOT NULL,
    profile_id uuid NOT NULL,
    collection smallint NOT NULL,
    merged_into bigint,
    created_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (space_id, profile_no)
) WITH (fillfactor = 70);

-- Which profile brought which identifier. `id_key` is the first 128 bits of SHA-256 over collection, type and
-- value: fixed in length, and nobody can make two values collide.
CREATE TABLE external_id (
    space_id int NOT NULL,
    id_key uuid NOT NULL,
    type_no smallint NOT NULL,
    profile_no bigint NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (space_id, id_key)
);

CREATE TABLE identity_settings (
    space_id int PRIMARY KEY REFERENCES space,
    version bigint NOT NULL,
    add_unknown_types boolean NOT NULL,
    merges_max int NOT NULL,
    identifiers_max int NOT NULL
);

CREATE TABLE identity_type (
    space_id int NOT NULL,
    type_no smallint NOT NULL,
    name text COLLATE "C" NOT NULL,
    keys text[] NOT NULL,
    value_limit int NOT NULL,
    frequency text NOT NULL,
    priority int,
    case_insensitive boolean NOT NULL,
    blocked_exact text[] NOT NULL,
    blocked_patterns text[] NOT NULL,
    PRIMARY KEY (space_id, type_no),
    UNIQUE (space_id, name)
);

CREATE TABLE profile_merge (
    space_id int NOT NULL,
    log_offset bigint NOT NULL,
    absorbed_no bigint NOT NULL,
    survivor_no bigint NOT NULL,
    merge_id uuid NOT NULL,
    merged_at timestamptz NOT NULL,
    message_id text NOT NULL,
    matched jsonb NOT NULL,
    PRIMARY KEY (space_id, log_offset, absorbed_no)
);
CREATE INDEX profile_merge_survivor ON profile_merge (space_id, survivor_no);

-- Identifiers that were refused, one row per profile, rule and value, however often it happens. `refusal_key` is a
-- hash of rule, type and value, because values may be too long for an index.
CREATE TABLE identity_refusal (
    space_id int NOT NULL,
    profile_no bigint NOT NULL,
    refusal_key uuid NOT NULL,
    rule text NOT NULL,
    type text NOT NULL,
    value text NOT NULL,
    occurrences bigint NOT NULL,
    first_offset bigint NOT NULL,
    message_id text NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, profile_no, refusal_key)
);

CREATE TABLE account_link (
    space_id int NOT NULL,
    account_no bigint NOT NULL,
    user_no bigint NOT NULL,
    created_at timestamptz NOT NULL,
    source_no int NOT NULL,
    message_id text NOT NULL,
    PRIMARY KEY (space_id, account_no, user_no)
);
CREATE INDEX account_link_user ON account_link (space_id, user_no);

-- Pointers to a profile's events that no longer fit its state row, some dozens a row.
CREATE TABLE profile_event_page (
    space_id int NOT NULL,
    profile_no bigint NOT NULL,
    first_offset bigint NOT NULL,
    min_at bigint NOT NULL,
    max_at bigint NOT NULL,
    pointers bytea NOT NULL,
    PRIMARY KEY (space_id, profile_no, first_offset)
);

-- When a profile's outcome can next change by the passage of time alone.
CREATE TABLE profile_due (
    space_id int NOT NULL,
    profile_no bigint NOT NULL,
    due_at bigint NOT NULL,
    PRIMARY KEY (space_id, profile_no)
);
CREATE INDEX profile_due_at ON profile_due (space_id, due_at);

-- An audience or computed trait. `serving_no` is the version that answers.
CREATE TABLE definition (
    space_id int NOT NULL REFERENCES space,
    definition_no int NOT NULL,
    definition_id uuid NOT NULL,
    kind smallint NOT NULL,
    key text COLLATE "C" NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    enabled boolean NOT NULL,
    latest_version int NOT NULL,
    serving_no int,
    deleted boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, definition_no)
);
CREATE UNIQUE INDEX definition_key ON definition (space_id, key) WHERE NOT deleted;

-- A version of a definition. It waits (`pending`) until the processor fixes its log position, is then folded over
-- history (`backfilling`), and serves (`live`) until a newer one is complete (`superseded`).
CREATE TABLE computation (
    space_id int NOT NULL,
    computation_no int NOT NULL,
    definition_no int NOT NULL,
    version int NOT NULL,
    query text NOT NULL,
    include_anonymous boolean NOT NULL,
    include_history boolean NOT NULL,
    status text NOT NULL,
    failure text,
    from_offset bigint,
    walked_no bigint NOT NULL DEFAULT 0,
    walking boolean NOT NULL DEFAULT false,
    size bigint NOT NULL DEFAULT 0,
    changed_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, computation_no),
    FOREIGN KEY (space_id, definition_no) REFERENCES definition (space_id, definition_no)
);

-- One incremental state shared by all definitions that need it. Events after from_offset fold live.
CREATE TABLE leaf (
    space_id int NOT NULL,
    leaf_no int NOT NULL,
    canonical text NOT NULL,
    from_offset bigint NOT NULL,
    ready boolean NOT NULL,
    PRIMARY KEY (space_id, leaf_no)
);

CREATE TABLE membership (
    space_id int NOT NULL,
    computation_no int NOT NULL,
    profile_no bigint NOT NULL,
    entered_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, computation_no, profile_no)
);

CREATE TABLE transition (
    space_id int NOT NULL,
    definition_no int NOT NULL,
    transition_no bigint NOT NULL,
    profile_no bigint NOT NULL,
    entered boolean NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (space_id, definition_no, transition_no)
);
CREATE INDEX transition_profile ON transition (space_id, profile_no);

-- Everything refused, with its reason: nothing is dropped silently. `warning` rows were accepted in part.
CREATE TABLE rejected_event (
    space_id int NOT NULL,
    rejected_id uuid NOT NULL,
    warning boolean NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    field text,
    message_id text,
    source_no int NOT NULL,
    received_at timestamptz NOT NULL,
    event text NOT NULL,
    PRIMARY KEY (space_id, rejected_id)
);
