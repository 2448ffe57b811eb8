-- A profile's state is read and written whole, and has no more to give to compression. Left to the defaults, Postgres
-- tries to compress every row of more than 2 KB and moves it out of the table: five times the cost of the update.
ALTER TABLE profile ALTER COLUMN state SET STORAGE EXTERNAL, SET (toast_tuple_target = 8160);

-- Nobody asks for the transitions of one profile by its number, and every transition paid for it.
DROP INDEX transition_profile;
