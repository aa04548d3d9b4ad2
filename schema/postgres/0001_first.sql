-- The books of one lab on a database that several brokers share: a journal of events, and beside it
-- the tables of the state they add up to. The tables are those of the embedded store, by the same
-- names, in the schema that a connection without a search path of its own finds first.
--
-- Moments named `at`, `now` or `..._at` are lab time: milliseconds that never go back, counted over
-- the store's life. `wall_ms` is Unix time in milliseconds by the leader's clock, for people;
-- `stamp` and `noted` are Unix time in milliseconds by the database's own.
--
-- Most tables keep one JSON record per row, as the core knows it, as text: the type jsonb refuses
-- what a client may well send (`\u0000`) and keeps neither order nor spelling. Beside each is a view,
-- named by the plural, that has what people ask for as columns: it costs nothing to write. A view
-- shows `\u0000` as the replacement character, as no text of the database can have it.
--
-- There are no foreign keys: the core keeps the books consistent, and brokers alone write them. Names
-- are in the collation "C": the order of their bytes, as everywhere else in leasehold.

-- One row: where the books are, and who leads.
--
-- Every write of a leader begins with an UPDATE of this row, under the condition that its epoch and
-- its last batch are what the leader knows. A broker that stands by takes the lead by an UPDATE under
-- the condition that epoch and beat are what it saw a term ago. So a leader that was too slow to notice
-- writes nothing: its condition finds no row.
CREATE TABLE lab (
    one           BIGINT PRIMARY KEY CHECK (one = 1),
    batch         BIGINT NOT NULL, -- the last batch committed
    last_event    BIGINT NOT NULL, -- the journal's last event
    now           BIGINT NOT NULL, -- lab time of the last batch
    wall_ms       BIGINT NOT NULL,
    term          BIGINT NOT NULL, -- times that a broker took the books up
    last_lease    BIGINT NOT NULL, -- the highest fence given
    last_claim    BIGINT NOT NULL,
    last_session  BIGINT NOT NULL,
    last_resource BIGINT NOT NULL,
    epoch         BIGINT NOT NULL, -- grows with every takeover, and when a leader connects anew
    began         BIGINT NOT NULL, -- the epoch that the present lead began with
    beat          BIGINT NOT NULL, -- grows with every write of a leader
    leader        TEXT,            -- the instance that leads; NULL: nobody does
    url           TEXT,            -- where clients reach it
    stamp         BIGINT NOT NULL  -- when the last batch was written, by the database's clock
);

INSERT INTO lab VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 0);

-- Brokers, as they noted themselves while they stood by: for people, and for a leader that is told to
-- stop. Nobody leads or not because of it.
CREATE TABLE broker (
    instance TEXT COLLATE "C" PRIMARY KEY,
    url      TEXT NOT NULL,
    noted    BIGINT NOT NULL
);

-- What happened, in order, never changed; pruned from the old end after a checkpoint.
CREATE TABLE journal (
    event    BIGINT PRIMARY KEY, -- dense: what is written twice is refused
    batch    BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    wall_ms  BIGINT NOT NULL,
    kind     TEXT COLLATE "C" NOT NULL,
    lease    BIGINT, -- what the event names, where it names one
    claim    BIGINT,
    session  BIGINT,
    resource BIGINT,
    body     TEXT NOT NULL -- the event as JSON
);

-- Numbers of leases and claims grow with time, so these indexes grow at one end. A session's events
-- are found between its first and its last instead: an index over all of them would touch a page per
-- session in every batch, for a question that is seldom asked.
CREATE INDEX journal_lease ON journal (lease) WHERE lease IS NOT NULL;
CREATE INDEX journal_claim ON journal (claim) WHERE claim IS NOT NULL;
CREATE INDEX journal_resource ON journal (resource) WHERE resource IS NOT NULL;
CREATE INDEX journal_session ON journal (session) WHERE kind IN ('session_opened', 'session_ended');

-- Pools with their policy.
CREATE TABLE pool (
    name   TEXT COLLATE "C" PRIMARY KEY,
    record TEXT NOT NULL
);

CREATE VIEW pools AS
SELECT name, record ->> 'origin' AS origin, (record -> 'pool' ->> 'max_hold_ms')::bigint AS max_hold_ms,
    (record -> 'pool' ->> 'ttl_ms')::bigint AS ttl_ms, record -> 'pool' ->> 'on_drop' AS on_drop
FROM (SELECT name, replace(record, '\u0000', '\ufffd')::json AS record FROM pool) AS pool;

-- Resources on the books. Who holds them is in `lease`.
CREATE TABLE resource (
    resource BIGINT PRIMARY KEY,
    record   TEXT NOT NULL
);

-- When each resource was last given. Apart from `resource` and narrow, because it changes with every
-- grant and the rest hardly ever; half of a page is left for the next version of its rows, which then
-- needs no change of the index.
CREATE TABLE resource_used (
    resource  BIGINT PRIMARY KEY,
    last_used BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE VIEW resources AS
SELECT resource, record -> 'spec' ->> 'name' AS name, record -> 'spec' ->> 'pool' AS pool,
    (record -> 'spec' ->> 'slots')::bigint AS slots, record -> 'spec' -> 'labels' AS labels,
    record ->> 'origin' AS origin, record -> 'marks' ->> 'quarantined' AS quarantined,
    record -> 'marks' ->> 'drained' AS drained, record ->> 'pending' AS pending, last_used
FROM (SELECT resource, replace(record, '\u0000', '\ufffd')::json AS record FROM resource) AS resource
LEFT JOIN resource_used USING (resource);

-- Marks of names that are not on the books at present; a resource that comes back finds its own.
CREATE TABLE remembered (
    name  TEXT COLLATE "C" PRIMARY KEY,
    marks TEXT NOT NULL
);

-- Open sessions.
CREATE TABLE session (
    session       BIGINT PRIMARY KEY,
    record        TEXT NOT NULL,
    forgotten     BIGINT NOT NULL DEFAULT 0, -- ended requests up to this number are forgotten,
    forgotten_row BIGINT NOT NULL DEFAULT 0  -- of those in rows of `request` up to this one
);

CREATE VIEW sessions AS
SELECT session, record -> 'owner' ->> 'name' AS owner, record -> 'kind' ->> 'kind' AS kind,
    (record ->> 'ttl_ms')::bigint AS ttl_ms, (record ->> 'opened_at')::bigint AS opened_at
FROM (SELECT session, replace(record, '\u0000', '\ufffd')::json AS record FROM session) AS session;

-- Waiting claims.
CREATE TABLE claim (
    claim  BIGINT PRIMARY KEY,
    record TEXT NOT NULL
);

CREATE VIEW claims AS
SELECT claim, (record ->> 'session')::bigint AS session, record -> 'owner' ->> 'name' AS owner,
    (record ->> 'queued_at')::bigint AS queued_at, (record -> 'seniority' ->> 'rank')::bigint AS seniority,
    record -> 'spec' ->> 'note' AS note, record -> 'spec' -> 'tags' AS tags
FROM (SELECT claim, replace(record, '\u0000', '\ufffd')::json AS record FROM claim) AS claim;

-- Leases, ended ones too until retention takes them.
CREATE TABLE lease (
    lease  BIGINT PRIMARY KEY, -- its number is its fence
    record TEXT NOT NULL
);

-- How and when leases ended; the rows stay as long as those of `lease`.
CREATE TABLE lease_end (
    lease   BIGINT PRIMARY KEY,
    at      BIGINT NOT NULL,
    outcome TEXT,         -- what the runner said of its work, if it said
    ended   TEXT NOT NULL -- how, as JSON
);

-- Leases that are held: a takeover reads these, however many have ended.
CREATE TABLE held (
    lease BIGINT PRIMARY KEY
);

CREATE VIEW leases AS
SELECT lease, (record ->> 'claim')::bigint AS claim, (record ->> 'session')::bigint AS session,
    record -> 'owner' ->> 'name' AS owner,
    (SELECT json_agg(pick -> 'name') FROM json_array_elements(record -> 'picks') AS pick) AS resources,
    (record ->> 'granted_at')::bigint AS granted_at, (record ->> 'until')::bigint AS until, at AS ended_at,
    replace(ended, '\u0000', '\ufffd')::json ->> 'why' AS why, outcome,
    record -> 'spec' ->> 'note' AS note, record -> 'spec' -> 'tags' AS tags
FROM (SELECT lease, replace(record, '\u0000', '\ufffd')::json AS record FROM lease) AS lease
LEFT JOIN lease_end USING (lease);

-- Which leases had a resource, by its name at the grant. Led by `era`, the lease's number divided
-- by 1024, so that the grants of one batch fall on a few pages and not on one page per resource;
-- a history is a search in each era.
CREATE TABLE lease_resource (
    era      BIGINT NOT NULL,
    resource TEXT COLLATE "C" NOT NULL,
    lease    BIGINT NOT NULL,
    PRIMARY KEY (era, resource, lease)
);

-- Requests that ended, so that asking twice is asking once. Only ever appended to: rows of sessions
-- that ended and rows forgotten are passed over by readers and swept when the store is pruned.
CREATE TABLE request (
    row       BIGINT PRIMARY KEY, -- one more than the last
    session   BIGINT NOT NULL,
    request   BIGINT NOT NULL, -- the session's number for it
    body_hash BIGINT,          -- a 64-bit fingerprint, as a signed number; NULL: cancelled unseen
    ended     TEXT NOT NULL
);

-- Outcomes of leases without a socket, by the hash of the key.
CREATE TABLE keyed (
    key    TEXT COLLATE "C" PRIMARY KEY,
    record TEXT NOT NULL
);

-- First arrivals of work that may be retried, by the claim that arrived first; forgotten a day later.
CREATE TABLE arrival (
    claim  BIGINT PRIMARY KEY,
    record TEXT NOT NULL
);

CREATE VIEW arrivals AS
SELECT claim, record -> 'key' ->> 'owner' AS owner, record -> 'key' ->> 'work' AS work,
    (record ->> 'first')::bigint AS first, (record ->> 'attempt')::bigint AS attempt
FROM (SELECT claim, replace(record, '\u0000', '\ufffd')::json AS record FROM arrival) AS arrival;

-- The whole state after `event`: checking and replaying start here once older events are pruned.
CREATE TABLE checkpoint (
    event  BIGINT PRIMARY KEY,
    batch  BIGINT NOT NULL,
    at     BIGINT NOT NULL,
    tables TEXT NOT NULL
);
