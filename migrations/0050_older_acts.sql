-- Acts from before there was an audit log with a chain: an empty salt says that they are still to be added to it, which takes
-- hashes the service makes, right behind the migrations.
UPDATE audit_entry SET salt = '' WHERE salt IS NULL AND NOT erased;
CREATE INDEX audit_entry_older ON audit_entry (space_id, log_offset) WHERE salt = '';
