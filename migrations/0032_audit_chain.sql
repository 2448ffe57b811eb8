-- The audit log: what was done in a space, and who read personal data. Each row's hash covers its content and the hash of
-- the row before it, so a row that was changed or taken out shows. Rows are only ever added. `content` is what was
-- hashed, as it stands; the other columns are for finding it. space_id 0 is the server itself.
CREATE TABLE audit_record (
    space_id int NOT NULL,
    entry_no bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    log_offset bigint,
    content text NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (space_id, entry_no)
);
CREATE INDEX audit_record_action ON audit_record (space_id, action, entry_no);
CREATE INDEX audit_record_kind ON audit_record (space_id, kind, entry_no);

-- The end of a chain: a row that was taken off the end shows, too.
CREATE TABLE audit_head (
    space_id int PRIMARY KEY,
    last_no bigint NOT NULL,
    last_hash bytea NOT NULL
);

-- What an act was about names people, so it is not in the chain: there is a hash of it, made with `salt`. With act and effect
-- erased, `erased` is true and the chain holds.
ALTER TABLE audit_entry ADD COLUMN salt bytea, ADD COLUMN erased boolean NOT NULL DEFAULT false;
