-- Destinations: where changes are sent, what of them is wanted there, what waits, and what became of what was sent.

-- A tool of the customer's. `secrets` is encrypted with a key that is not in the database; `secret_key_id` names it.
CREATE TABLE destination (
    space_id int NOT NULL REFERENCES space,
    destination_no int NOT NULL,
    destination_id uuid NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    settings jsonb NOT NULL,
    secrets bytea,
    secret_key_id text,
    concurrency int NOT NULL,
    rate_per_second int,
    timeout_ms int NOT NULL,
    -- Its queue and history are being forgotten.
    deleted boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, destination_no)
);
CREATE INDEX destination_id ON destination (space_id, destination_id);

-- The lease, the state and the counters of the worker of a destination: every transaction of a worker updates it `where
-- epoch = …`; no row updated means that another process has taken over. Lease times are the database's.
CREATE TABLE destination_worker (
    space_id int NOT NULL,
    destination_no int NOT NULL,
    owner uuid,
    epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    -- Raised by every change of settings, limits or subscriptions: the worker reloads.
    config_version bigint NOT NULL DEFAULT 0,
    -- `connected`, `paused` (by an operator) or `failing` (by the service, see the reason).
    state text NOT NULL,
    state_reason text,
    state_since timestamptz NOT NULL,
    -- Rows that have left the queue: what waits is the number of the queue's end less this.
    done bigint NOT NULL DEFAULT 0,
    delivered bigint NOT NULL DEFAULT 0,
    filtered bigint NOT NULL DEFAULT 0,
    -- Dead letters there are.
    dead bigint NOT NULL DEFAULT 0,
    -- Changes under way when the row was written last.
    in_flight int NOT NULL DEFAULT 0,
    -- Nothing but failures since then.
    failing_since timestamptz,
    last_error_code text,
    last_error text,
    last_error_at timestamptz,
    last_delivered_at timestamptz,
    PRIMARY KEY (space_id, destination_no)
);

-- Attempts that failed, by reason.
CREATE TABLE destination_failure (
    space_id int NOT NULL,
    destination_no int NOT NULL,
    code text NOT NULL,
    attempts bigint NOT NULL,
    PRIMARY KEY (space_id, destination_no, code)
);

-- What a destination wants. `subject`: 0 audience, 1 computed trait, 2 custom traits, 3 merges; `definition_no` is 0 for
-- the last two. Empty for a rebuild: what is derived again is not told again.
CREATE TABLE destination_subscription (
    space_id int NOT NULL,
    destination_no int NOT NULL,
    subscription_no int NOT NULL,
    subscription_id uuid NOT NULL,
    subject smallint NOT NULL,
    definition_no int NOT NULL,
    enabled boolean NOT NULL,
    -- Calls that are sent of each change: 1 identify (or group), 2 track, 3 both.
    forms smallint NOT NULL,
    -- Event names, filter, id sync, enrichment, allowed and denied fields.
    options jsonb NOT NULL,
    -- Full sync: profiles behind `sync_after`, up to `sync_until`, have still to be told. None: nothing to do.
    sync_after bigint,
    sync_until bigint,
    sync_started_at timestamptz,
    sync_ended_at timestamptz,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, destination_no, subscription_no)
);
CREATE UNIQUE INDEX destination_subscription_of
    ON destination_subscription (space_id, destination_no, subject, definition_no);

-- The end of a destination's queue. Its row lock is the sequencer: numbers are dense and commit order is their order.
CREATE TABLE delivery_head (
    space_id int NOT NULL,
    destination_no int NOT NULL,
    last_no bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (space_id, destination_no)
);

-- The queue: a row is one change for one destination, written in the transaction that makes the change, deleted when it
-- was sent. `seq` is its place; `delivery_no` was its first one, and stays the same when it is sent once more.
CREATE TABLE delivery (
    space_id int NOT NULL,
    destination_no int NOT NULL,
    seq bigint NOT NULL,
    delivery_no bigint NOT NULL,
    profile_no bigint NOT NULL,
    subscription_no int NOT NULL,
    subject smallint NOT NULL,
    form smallint NOT NULL,
    definition_no int NOT NULL,
    value text NOT NULL,
    at timestamptz NOT NULL,
    -- Attempts before it was put (again) into the queue.
    attempts int NOT NULL DEFAULT 0,
    PRIMARY KEY (space_id, destination_no, seq)
);
CREATE INDEX delivery_profile ON delivery (space_id, destination_no, profile_no, seq);
CREATE INDEX delivery_again ON delivery (space_id, destination_no, delivery_no) WHERE seq <> delivery_no;

-- Profiles whose first waiting change has failed: it and all behind it wait until `next_at`.
CREATE TABLE delivery_hold (
    space_id int NOT NULL,
    destination_no int NOT NULL,
    profile_no bigint NOT NULL,
    next_at timestamptz NOT NULL,
    -- Failed attempts of that change since it was put into the queue, and the first of them.
    tries int NOT NULL,
    first_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, destination_no, profile_no)
);
CREATE INDEX delivery_hold_next ON delivery_hold (space_id, destination_no, next_at);

-- What became of changes. `state`: 1 delivered, 2 filtered, 3 dead, 4 discarded.
CREATE TABLE delivery_outcome (
    space_id int NOT NULL,
    destination_no int NOT NULL,
    delivery_no bigint NOT NULL,
    profile_no bigint NOT NULL,
    subscription_no int NOT NULL,
    subject smallint NOT NULL,
    form smallint NOT NULL,
    definition_no int NOT NULL,
    value text NOT NULL,
    at timestamptz NOT NULL,
    state smallint NOT NULL,
    attempts int NOT NULL,
    code text,
    message text,
    done_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, destination_no, delivery_no)
);
CREATE INDEX delivery_outcome_dead ON delivery_outcome (space_id, destination_no, delivery_no) WHERE state = 3;
CREATE INDEX delivery_outcome_profile ON delivery_outcome (space_id, profile_no);

-- Attempts to be looked at: all that failed, and of those that did not as many as are kept.
CREATE TABLE delivery_attempt (
    space_id int NOT NULL,
    destination_no int NOT NULL,
    delivery_no bigint NOT NULL,
    attempt int NOT NULL,
    at timestamptz NOT NULL,
    -- `delivered`, `retry`, `rejected` or `gone`.
    outcome text NOT NULL,
    code text,
    message text,
    exchange_id uuid,
    PRIMARY KEY (space_id, destination_no, delivery_no, attempt)
);

-- Requests and answers, secrets masked, bodies cut. One may be about many attempts.
CREATE TABLE delivery_exchange (
    space_id int NOT NULL,
    destination_no int NOT NULL,
    exchange_id uuid NOT NULL,
    request text NOT NULL,
    status int,
    response text NOT NULL,
    took_ms int NOT NULL,
    PRIMARY KEY (space_id, destination_no, exchange_id)
);
