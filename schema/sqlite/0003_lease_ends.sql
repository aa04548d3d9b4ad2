-- How a lease ended stands apart from what it was. An end is a small row among the latest ends, where
-- it used to rewrite the page of each lease and two indexes: most of what a commit wrote.

-- How and when leases ended; the rows stay as long as those of `lease`.
CREATE TABLE lease_end (
    lease   INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    outcome TEXT,         -- what the runner said of its work, if it said
    ended   TEXT NOT NULL -- how, as JSON
) STRICT;

INSERT INTO lease_end (lease, at, outcome, ended)
SELECT lease, ended_at, outcome, ended FROM lease WHERE ended_at IS NOT NULL;

-- Leases that are held: a start-up reads these, however many have ended.
CREATE TABLE held (
    lease INTEGER PRIMARY KEY
) STRICT;

INSERT INTO held (lease) SELECT lease FROM lease WHERE ended_at IS NULL;

DROP VIEW leases;
DROP INDEX lease_held;
DROP INDEX lease_ended;
ALTER TABLE lease DROP COLUMN ended_at;
ALTER TABLE lease DROP COLUMN outcome;
ALTER TABLE lease DROP COLUMN ended;

CREATE VIEW leases AS
SELECT lease, record ->> '$.claim' AS claim, record ->> '$.session' AS session,
    record ->> '$.owner.name' AS owner,
    (SELECT json_group_array(value ->> '$.name') FROM json_each(record, '$.picks')) AS resources,
    record ->> '$.granted_at' AS granted_at, record ->> '$.until' AS until, at AS ended_at,
    ended ->> '$.why' AS why, outcome, record ->> '$.spec.note' AS note, record ->> '$.spec.tags' AS tags
FROM lease LEFT JOIN lease_end USING (lease);
