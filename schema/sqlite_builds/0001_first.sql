-- The books of the builds of one lab: builds and what happened to them, deliveries, and commit statuses on
-- their way to a forge. A file of its own beside the books of the leases, so that nothing here keeps a lease
-- waiting.
--
-- `..._ms` is Unix time in milliseconds. Each table keeps one JSON record per row, as the broker knows it,
-- and beside it as columns what is asked by. The views, named by the plural, show more of it to people.

-- One row: the highest numbers given, which stay given when what had them is deleted.
CREATE TABLE builds_last (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    build    INTEGER NOT NULL,
    delivery INTEGER NOT NULL
) STRICT;

INSERT INTO builds_last VALUES (1, 0, 0);

CREATE TABLE build (
    build      INTEGER PRIMARY KEY,
    repository TEXT NOT NULL,
    pipeline   TEXT NOT NULL,
    line       TEXT NOT NULL, -- `branch main`, `pull request 7`, `tag v1`
    phase      TEXT NOT NULL,
    ended_ms   INTEGER,       -- NULL: it is not over
    record     TEXT NOT NULL
) STRICT;

-- Each has what else is asked together with it, so that passing a build over does not read it.
CREATE INDEX build_repository ON build (repository, build, pipeline, phase);
CREATE INDEX build_pipeline ON build (pipeline, build, phase);
CREATE INDEX build_phase ON build (phase, build, repository, pipeline);
CREATE INDEX build_line ON build (repository, line, build);
CREATE INDEX build_ended ON build (ended_ms) WHERE ended_ms IS NOT NULL;

CREATE VIEW builds AS
SELECT build, repository, pipeline, line, record ->> '$.subject.sha' AS sha, record ->> '$.subject.title' AS title,
    phase, record ->> '$.reason' AS reason, record ->> '$.by' AS who, record ->> '$.attempt' AS attempt,
    record ->> '$.lease' AS lease, record ->> '$.agent' AS agent, record ->> '$.exit_code' AS exit_code,
    record ->> '$.times.created_ms' AS created_ms, record ->> '$.times.begun_ms' AS begun_ms, ended_ms
FROM build;

-- What happened to builds, only ever appended to.
CREATE TABLE note (
    note   INTEGER PRIMARY KEY,
    build  INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;

CREATE INDEX note_build ON note (build, note);

CREATE VIEW notes AS
SELECT note, build, record ->> '$.at_ms' AS at_ms, record ->> '$.phase' AS phase, record ->> '$.attempt' AS attempt,
    record ->> '$.what' AS what, record ->> '$.by' AS who
FROM note;

-- What forges sent, once its signature was found right.
CREATE TABLE delivery (
    delivery    INTEGER PRIMARY KEY,
    forge       TEXT NOT NULL,
    forge_id    TEXT NOT NULL, -- the forge's own name for it
    received_ms INTEGER NOT NULL,
    waiting     INTEGER NOT NULL, -- 1 until it is worked on
    record      TEXT NOT NULL
) STRICT;

CREATE INDEX delivery_received ON delivery (received_ms);
CREATE INDEX delivery_forge_id ON delivery (forge, forge_id);
CREATE INDEX delivery_waiting ON delivery (delivery) WHERE waiting = 1;

CREATE VIEW deliveries AS
SELECT delivery, forge, forge_id, record ->> '$.event' AS event,
    coalesce(record ->> '$.said.Ok.repository', '') AS repository, received_ms,
    record ->> '$.outcome.outcome' AS outcome, record ->> '$.outcome.reason' AS reason
FROM delivery;

-- Their bodies, compressed with zstd. Apart, as only a few are ever read again.
CREATE TABLE delivery_body (
    delivery INTEGER PRIMARY KEY,
    body     BLOB NOT NULL
) STRICT;

-- Commit statuses: what each is, or is to be.
CREATE TABLE status (
    repository TEXT NOT NULL,
    sha        TEXT NOT NULL,
    context    TEXT NOT NULL,
    build      INTEGER NOT NULL,
    version    INTEGER NOT NULL, -- a row is only replaced by one that is not below it
    told       INTEGER NOT NULL, -- 0 until the forge has taken it
    due_ms     INTEGER NOT NULL,
    record     TEXT NOT NULL,
    PRIMARY KEY (repository, sha, context)
) STRICT, WITHOUT ROWID;

CREATE INDEX status_build ON status (build);
CREATE INDEX status_untold ON status (due_ms) WHERE told = 0;

CREATE VIEW statuses AS
SELECT repository, sha, context, build, record ->> '$.state' AS state, record ->> '$.description' AS description,
    told, due_ms, record ->> '$.trouble' AS trouble
FROM status;
