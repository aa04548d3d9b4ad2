-- The books of the builds: builds and what happened to them, deliveries, and commit statuses on their way
-- to a forge. The tables are those of the embedded store, by the same names where no other table has them.
--
-- `..._ms` is Unix time in milliseconds. Each table keeps one JSON record per row, as the broker knows it, as
-- text, and beside it as columns what is asked by. The views, named by the plural, show more of it to people.

-- One row: who writes the builds.
--
-- Whoever leads the lab takes the builds over by an UPDATE of this row, before it reads them, and then looks
-- in `lab` whether it leads still. Every other write begins by locking the row FOR SHARE, under the condition
-- that `taken` is what it was told then. So no write of an older leader comes after that, and none is cut off
-- in its middle: taking over waits for it. Nobody who writes builds ever locks `lab`.
CREATE TABLE builds_lead (
    one      BIGINT PRIMARY KEY CHECK (one = 1),
    taken    BIGINT NOT NULL, -- how often they were taken over
    began    BIGINT NOT NULL, -- the epoch that the lead of whoever did it began with
    instance TEXT             -- and which process that is
);

INSERT INTO builds_lead VALUES (1, 0, 0, NULL);

-- One row: the highest numbers given, which stay given when what had them is deleted.
CREATE TABLE builds_last (
    one      BIGINT PRIMARY KEY CHECK (one = 1),
    build    BIGINT NOT NULL,
    delivery BIGINT NOT NULL
);

INSERT INTO builds_last VALUES (1, 0, 0);

CREATE TABLE build (
    build      BIGINT PRIMARY KEY,
    repository TEXT COLLATE "C" NOT NULL,
    pipeline   TEXT COLLATE "C" NOT NULL,
    line       TEXT COLLATE "C" NOT NULL, -- `branch main`, `pull request 7`, `tag v1`
    phase      TEXT COLLATE "C" NOT NULL,
    ended_ms   BIGINT, -- NULL: it is not over
    record     TEXT NOT NULL
);

-- Each has what else is asked together with it, so that passing a build over does not read it.
CREATE INDEX build_repository ON build (repository, build, pipeline, phase);
CREATE INDEX build_pipeline ON build (pipeline, build, phase);
CREATE INDEX build_phase ON build (phase, build, repository, pipeline);
CREATE INDEX build_line ON build (repository, line, build);
CREATE INDEX build_ended ON build (ended_ms) WHERE ended_ms IS NOT NULL;

CREATE VIEW builds AS
SELECT build, repository, pipeline, line, shown -> 'subject' ->> 'sha' AS sha,
    shown -> 'subject' ->> 'title' AS title, phase, shown ->> 'reason' AS reason, shown ->> 'by' AS who,
    (shown ->> 'attempt')::bigint AS attempt, (shown ->> 'lease')::bigint AS lease, shown ->> 'agent' AS agent,
    (shown ->> 'exit_code')::bigint AS exit_code, (shown -> 'times' ->> 'created_ms')::bigint AS created_ms,
    (shown -> 'times' ->> 'begun_ms')::bigint AS begun_ms, ended_ms
FROM (SELECT *, replace(record, '\u0000', '\ufffd')::json AS shown FROM build) AS build;

-- What happened to builds, only ever appended to.
CREATE TABLE note (
    note   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    build  BIGINT NOT NULL,
    record TEXT NOT NULL
);

CREATE INDEX note_build ON note (build, note);

CREATE VIEW notes AS
SELECT note, build, (shown ->> 'at_ms')::bigint AS at_ms, shown ->> 'phase' AS phase,
    (shown ->> 'attempt')::bigint AS attempt, shown ->> 'what' AS what, shown ->> 'by' AS who
FROM (SELECT *, replace(record, '\u0000', '\ufffd')::json AS shown FROM note) AS note;

-- What forges sent, once its signature was found right.
CREATE TABLE delivery (
    delivery    BIGINT PRIMARY KEY,
    forge       TEXT COLLATE "C" NOT NULL,
    forge_id    TEXT COLLATE "C" NOT NULL, -- the forge's own name for it
    received_ms BIGINT NOT NULL,
    waiting     BIGINT NOT NULL, -- 1 until it is worked on
    record      TEXT NOT NULL
);

CREATE INDEX delivery_received ON delivery (received_ms);
CREATE INDEX delivery_forge_id ON delivery (forge, forge_id);
CREATE INDEX delivery_waiting ON delivery (delivery) WHERE waiting = 1;

CREATE VIEW deliveries AS
SELECT delivery, forge, forge_id, shown ->> 'event' AS event,
    coalesce(shown -> 'said' -> 'Ok' ->> 'repository', '') AS repository, received_ms,
    shown -> 'outcome' ->> 'outcome' AS outcome, shown -> 'outcome' ->> 'reason' AS reason
FROM (SELECT *, replace(record, '\u0000', '\ufffd')::json AS shown FROM delivery) AS delivery;

-- Their bodies, compressed with zstd. Apart, as only a few are ever read again.
CREATE TABLE delivery_body (
    delivery BIGINT PRIMARY KEY,
    body     BYTEA NOT NULL
);

-- Commit statuses: what each is, or is to be.
CREATE TABLE status (
    repository TEXT COLLATE "C" NOT NULL,
    sha        TEXT COLLATE "C" NOT NULL,
    context    TEXT COLLATE "C" NOT NULL,
    build      BIGINT NOT NULL,
    version    BIGINT NOT NULL, -- a row is only replaced by one that is not below it
    told       BIGINT NOT NULL, -- 0 until the forge has taken it
    due_ms     BIGINT NOT NULL,
    record     TEXT NOT NULL,
    PRIMARY KEY (repository, sha, context)
);

CREATE INDEX status_build ON status (build);
CREATE INDEX status_untold ON status (due_ms) WHERE told = 0;

CREATE VIEW statuses AS
SELECT repository, sha, context, build, shown ->> 'state' AS state, shown ->> 'description' AS description,
    told, due_ms, shown ->> 'trouble' AS trouble
FROM (SELECT *, replace(record, '\u0000', '\ufffd')::json AS shown FROM status) AS status;
