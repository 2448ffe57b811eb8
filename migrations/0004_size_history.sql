-- How many members an audience had: one row for each minute in which that changed, thinned to hours after a month
-- (decision A19). Written with the sizes themselves, so the two never disagree.
CREATE TABLE size_point (
    space_id int NOT NULL,
    definition_no int NOT NULL,
    minute timestamptz NOT NULL,
    size bigint NOT NULL,
    PRIMARY KEY (space_id, definition_no, minute)
);
