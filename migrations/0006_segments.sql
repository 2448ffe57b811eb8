-- The log once more, for scans: the events of a stretch of the log by name and, within a name, by column. Made of what is
-- processed, some time after it; whatever has no segment is read from the chunks. Dropped with the chunks' weeks.
CREATE TABLE log_segment (
    space_id int NOT NULL,
    end_offset bigint NOT NULL,
    day date NOT NULL,
    event_count int NOT NULL,
    -- Every name has a section; otherwise there were too many, and a name without one says nothing.
    is_whole boolean NOT NULL,
    PRIMARY KEY (space_id, end_offset, day)
) PARTITION BY RANGE (day);

-- The users' events of one name in a segment. `is_whole`: all their properties are kept as columns; otherwise there were
-- too many, and a key without a column says nothing.
CREATE TABLE log_section (
    space_id int NOT NULL,
    end_offset bigint NOT NULL,
    day date NOT NULL,
    name text COLLATE "C" NOT NULL,
    row_count int NOT NULL,
    is_whole boolean NOT NULL,
    rows bytea NOT NULL,
    messages bytea NOT NULL,
    PRIMARY KEY (space_id, end_offset, day, name)
) PARTITION BY RANGE (day);
ALTER TABLE log_section ALTER COLUMN rows SET STORAGE EXTERNAL;
ALTER TABLE log_section ALTER COLUMN messages SET STORAGE EXTERNAL;

-- One property of those events.
CREATE TABLE log_column (
    space_id int NOT NULL,
    end_offset bigint NOT NULL,
    day date NOT NULL,
    name text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (space_id, end_offset, day, name, key)
) PARTITION BY RANGE (day);
ALTER TABLE log_column ALTER COLUMN body SET STORAGE EXTERNAL;
