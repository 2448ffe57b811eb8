-- By how much the size of an audience changed, minute by minute, thinned to hours after a month (decision A19). Written
-- with the sizes themselves: the sum is always the present size, in whatever order changes become known.
CREATE TABLE size_change (
    space_id int NOT NULL,
    definition_no int NOT NULL,
    minute timestamptz NOT NULL,
    delta bigint NOT NULL,
    PRIMARY KEY (space_id, definition_no, minute)
);
