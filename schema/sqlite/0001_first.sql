-- The books of one lab: a journal of events, and beside it the tables of the state they add up to.
--
-- Moments named `at`, `now` or `..._at` are lab time: milliseconds that never go back, counted over
-- the store's life. `wall_ms` is Unix time in milliseconds, for people.
--
-- Most tables keep one JSON record per row, as the core knows it. Beside each is a view, named by
-- the plural, that has what people ask for as columns: it costs nothing to write, where columns
-- (also generated ones) would be worked out for every row of every batch.
--
-- There are no foreign keys: the core keeps the books consistent, and `leasehold` alone writes them.

-- One row: where the books are.
CREATE TABLE lab (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    batch         INTEGER NOT NULL, -- the last batch committed
    last_event    INTEGER NOT NULL, -- the journal's last event
    now           INTEGER NOT NULL, -- lab time of the last batch
    wall_ms       INTEGER NOT NULL,
    term          INTEGER NOT NULL, -- process starts
    last_lease    INTEGER NOT NULL, -- the highest fence given
    last_claim    INTEGER NOT NULL,
    last_session  INTEGER NOT NULL,
    last_resource INTEGER NOT NULL
) STRICT;

INSERT INTO lab VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0);

-- A batch that does not follow the last one is refused whole: somebody else has written.
CREATE TRIGGER lab_in_order BEFORE UPDATE OF batch ON lab WHEN NEW.batch IS NOT OLD.batch + 1
BEGIN
    SELECT RAISE(ABORT, 'batch out of order');
END;

-- What happened, in order, never changed; pruned from the old end after a checkpoint.
CREATE TABLE journal (
    event    INTEGER PRIMARY KEY, -- dense
    batch    INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    wall_ms  INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    lease    INTEGER, -- what the event names, where it names one
    claim    INTEGER,
    session  INTEGER,
    resource INTEGER,
    body     TEXT NOT NULL -- the event as JSON
) STRICT;

-- Numbers of leases and claims grow with time, so these indexes grow at one end: a page or two per
-- batch. A session's events are found between its first and its last instead: an index over all of
-- them would touch a page per session in every batch, for a question that is seldom asked.
CREATE INDEX journal_lease ON journal (lease) WHERE lease IS NOT NULL;
CREATE INDEX journal_claim ON journal (claim) WHERE claim IS NOT NULL;
CREATE INDEX journal_resource ON journal (resource) WHERE resource IS NOT NULL;
CREATE INDEX journal_session ON journal (session) WHERE kind IN ('session_opened', 'session_ended');

-- Pools with their policy.
CREATE TABLE pool (
    name   TEXT PRIMARY KEY,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW pools AS
SELECT name, record ->> '$.origin' AS origin, record ->> '$.pool.max_hold_ms' AS max_hold_ms,
    record ->> '$.pool.ttl_ms' AS ttl_ms, record ->> '$.pool.on_drop' AS on_drop
FROM pool;

-- Resources on the books. Who holds them is in `lease`.
CREATE TABLE resource (
    resource INTEGER PRIMARY KEY,
    record   TEXT NOT NULL
) STRICT;

-- When each resource was last given. Apart from `resource` and narrow, because it changes with
-- every grant and the rest hardly ever.
CREATE TABLE resource_used (
    resource  INTEGER PRIMARY KEY,
    last_used INTEGER NOT NULL
) STRICT;

CREATE VIEW resources AS
SELECT resource, record ->> '$.spec.name' AS name, record ->> '$.spec.pool' AS pool,
    record ->> '$.spec.slots' AS slots, record ->> '$.spec.labels' AS labels, record ->> '$.origin' AS origin,
    record ->> '$.marks.quarantined' AS quarantined, record ->> '$.marks.drained' AS drained,
    record ->> '$.pending' AS pending, last_used
FROM resource LEFT JOIN resource_used USING (resource);

-- Marks of names that are not on the books at present; a resource that comes back finds its own.
CREATE TABLE remembered (
    name  TEXT PRIMARY KEY,
    marks TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Open sessions.
CREATE TABLE session (
    session       INTEGER PRIMARY KEY,
    record        TEXT NOT NULL,
    forgotten     INTEGER NOT NULL DEFAULT 0, -- ended requests up to this number are forgotten,
    forgotten_row INTEGER NOT NULL DEFAULT 0 -- of those in rows of `request` up to this one
) STRICT;

CREATE VIEW sessions AS
SELECT session, record ->> '$.owner.name' AS owner, record ->> '$.kind.kind' AS kind,
    record ->> '$.ttl_ms' AS ttl_ms, record ->> '$.opened_at' AS opened_at
FROM session;

-- Waiting claims.
CREATE TABLE claim (
    claim  INTEGER PRIMARY KEY,
    record TEXT NOT NULL
) STRICT;

CREATE VIEW claims AS
SELECT claim, record ->> '$.session' AS session, record ->> '$.owner.name' AS owner,
    record ->> '$.queued_at' AS queued_at, record ->> '$.seniority.rank' AS seniority,
    record ->> '$.spec.note' AS note, record ->> '$.spec.tags' AS tags
FROM claim;

-- Leases, ended ones too until retention takes them.
CREATE TABLE lease (
    lease    INTEGER PRIMARY KEY, -- its number is its fence
    ended_at INTEGER,             -- with the next two: NULL while it is held
    outcome  TEXT,                -- what the runner said of its work, if it said
    ended    TEXT,                -- how it ended, as JSON
    record   TEXT NOT NULL
) STRICT;

-- A start-up reads the held ones, however many have ended; pruning takes the oldest ended ones.
CREATE INDEX lease_held ON lease (lease) WHERE ended_at IS NULL;
CREATE INDEX lease_ended ON lease (ended_at) WHERE ended_at IS NOT NULL;

CREATE VIEW leases AS
SELECT lease, record ->> '$.claim' AS claim, record ->> '$.session' AS session,
    record ->> '$.owner.name' AS owner,
    (SELECT json_group_array(value ->> '$.name') FROM json_each(record, '$.picks')) AS resources,
    record ->> '$.granted_at' AS granted_at, record ->> '$.until' AS until, ended_at,
    ended ->> '$.why' AS why, outcome, record ->> '$.spec.note' AS note, record ->> '$.spec.tags' AS tags
FROM lease;

-- Which leases had a resource, by its name at the grant. Led by `era`, the lease's number divided
-- by 1024, so that the grants of one batch fall on a few pages and not on one page per resource;
-- a history is a search in each era.
CREATE TABLE lease_resource (
    era      INTEGER NOT NULL,
    resource TEXT NOT NULL,
    lease    INTEGER NOT NULL,
    PRIMARY KEY (era, resource, lease)
) STRICT, WITHOUT ROWID;

-- Requests that ended, so that asking twice is asking once. Only ever appended to: rows of sessions
-- that ended and rows forgotten are passed over by readers and swept when the store is pruned.
CREATE TABLE request (
    row       INTEGER PRIMARY KEY,
    session   INTEGER NOT NULL,
    request   INTEGER NOT NULL, -- the session's number for it
    body_hash INTEGER,          -- a 64-bit fingerprint, as a signed number; NULL: cancelled unseen
    ended     TEXT NOT NULL
) STRICT;

-- Outcomes of leases without a socket, by the hash of the key.
CREATE TABLE keyed (
    key    TEXT PRIMARY KEY,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The whole state after `event`: checking and replaying start here once older events are pruned.
CREATE TABLE checkpoint (
    event  INTEGER PRIMARY KEY,
    batch  INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    tables TEXT NOT NULL
) STRICT;
