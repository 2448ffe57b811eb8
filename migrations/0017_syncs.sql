-- Full syncs by definition: a subscription to all (`definition_no` 0: of users, -1: of accounts) has one for each. Rows that
-- are done (`after_no` is null) stay until all of their subscription are. `replaced` are versions that answered before: who
-- has a value of theirs and none of the present one is told so.
CREATE TABLE destination_sync (
    space_id int NOT NULL,
    destination_no int NOT NULL,
    subscription_no int NOT NULL,
    definition_no int NOT NULL,
    after_no bigint,
    until_no bigint NOT NULL,
    replaced int[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (space_id, destination_no, subscription_no, definition_no)
);
INSERT INTO destination_sync (space_id, destination_no, subscription_no, definition_no, after_no, until_no)
    SELECT space_id, destination_no, subscription_no, definition_no, sync_after, sync_until FROM destination_subscription
    WHERE sync_after IS NOT NULL;
ALTER TABLE destination_subscription DROP COLUMN sync_after, DROP COLUMN sync_until;
