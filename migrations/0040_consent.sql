-- What people consent to: categories as the customer's consent tool names them in events.
CREATE TABLE consent_category (
    space_id int NOT NULL REFERENCES space,
    category_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, category_id)
);

-- Which destinations may be told of people only with consent to a category; with several, to all of them.
CREATE TABLE consent_mapping (
    space_id int NOT NULL,
    category_id text COLLATE "C" NOT NULL,
    destination_no int NOT NULL,
    PRIMARY KEY (space_id, category_id, destination_no)
);
CREATE INDEX consent_mapping_destination ON consent_mapping (space_id, destination_no);
