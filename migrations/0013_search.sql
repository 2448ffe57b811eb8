-- Traits that profiles can be searched by: a setting of the space. A trait that was added later is filled in over the
-- profiles there are, up to `filled_no` so far; null: it is complete. One that was removed goes when its entries are gone.
CREATE TABLE search_trait (
    space_id int NOT NULL,
    trait_no smallint NOT NULL,
    name text COLLATE "C" NOT NULL,
    filled_no bigint,
    removed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (space_id, trait_no)
);

-- Which profiles have which value of such a trait, by a hash of it: readers look at the trait itself. Kept with the
-- profiles, so no entry is missing, and none is there for a profile that has another value now or was absorbed.
CREATE TABLE search_entry (
    space_id int NOT NULL,
    trait_no smallint NOT NULL,
    value_hash bigint NOT NULL,
    profile_no bigint NOT NULL,
    PRIMARY KEY (space_id, trait_no, value_hash, profile_no)
);

INSERT INTO search_trait (space_id, trait_no, name, filled_no)
SELECT space.space_id, t.no, t.name, 0
FROM space, unnest(ARRAY['name', 'first_name', 'last_name', 'username', 'phone', 'company', 'plan'])
    WITH ORDINALITY AS t (name, no);
