-- Public ids say by which event of the log a profile was made, not which number it has: they are looked up.
CREATE UNIQUE INDEX profile_public ON profile (space_id, profile_id);
