-- First arrivals of work that may be retried, by the claim that arrived first; forgotten a day later.
CREATE TABLE arrival (
    claim  INTEGER PRIMARY KEY,
    record TEXT NOT NULL
) STRICT;

CREATE VIEW arrivals AS
SELECT claim, record ->> '$.key.owner' AS owner, record ->> '$.key.work' AS work, record ->> '$.first' AS first,
    record ->> '$.attempt' AS attempt
FROM arrival;
