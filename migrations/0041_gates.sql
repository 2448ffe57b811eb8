-- What is asked of the members of an audience besides its query, by version; and what a definition is for, in words.
ALTER TABLE definition ADD COLUMN purpose text;
ALTER TABLE computation
    ADD COLUMN consent_category text COLLATE "C",
    ADD COLUMN enforces_consent boolean NOT NULL DEFAULT false,
    ADD COLUMN requires_human_review boolean NOT NULL DEFAULT false;

-- Whether audiences leave out who does not consent to their category; a space without a row does not.
CREATE TABLE consent_settings (
    space_id int PRIMARY KEY REFERENCES space,
    membership boolean NOT NULL
);
