-- What has been seen: event names with their properties (kind 0), traits of users (1) and of accounts (2; both under an
-- empty name). For autocomplete and warnings: nothing is computed from it.
CREATE TABLE seen (
    space_id int NOT NULL,
    kind smallint NOT NULL,
    name text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    fields jsonb NOT NULL,
    PRIMARY KEY (space_id, kind, name)
);

-- Up to where the log has been looked at for that.
CREATE TABLE seen_position (
    space_id int PRIMARY KEY,
    processed bigint NOT NULL
);
