-- What identity resolution refuses, over all profiles of a space: one row per rule, type and value, kept with
-- identity_refusal, so that the values that are refused most often are found without going through all of that.
-- `problem_key` is the `refusal_key`. `profiles` counts a profile that was absorbed later on as one of its own.
CREATE TABLE identity_problem (
    space_id int NOT NULL,
    problem_key uuid NOT NULL,
    rule text NOT NULL,
    type text NOT NULL,
    value text NOT NULL,
    occurrences bigint NOT NULL,
    profiles bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (space_id, problem_key)
) WITH (fillfactor = 70);
CREATE INDEX identity_problem_most ON identity_problem (space_id, occurrences, problem_key);

INSERT INTO identity_problem
SELECT space_id, refusal_key, min(rule), min(type), min(value), sum(occurrences)::bigint,
    count(*) FILTER (WHERE profile_no <> 0), min(first_at), max(last_at)
FROM identity_refusal GROUP BY space_id, refusal_key;
