-- A status may be of a delivery instead of a build: what is wrong with the pipelines of its commit. A column
-- that must not be empty cannot be made one that may, so the table is made anew.

DROP VIEW statuses;

ALTER TABLE status RENAME TO status_before;

DROP INDEX status_build;
DROP INDEX status_untold;

CREATE TABLE status (
    repository TEXT NOT NULL,
    sha        TEXT NOT NULL,
    context    TEXT NOT NULL,
    build      INTEGER, -- whose it is: a build's,
    delivery   INTEGER, -- or a delivery's
    version    INTEGER NOT NULL, -- a row is only replaced by one that is not below it
    told       INTEGER NOT NULL, -- 0 until the forge has taken it
    due_ms     INTEGER NOT NULL,
    record     TEXT NOT NULL,
    PRIMARY KEY (repository, sha, context),
    CHECK ((build IS NULL) <> (delivery IS NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO status (repository, sha, context, build, version, told, due_ms, record)
SELECT repository, sha, context, build, version, told, due_ms, record FROM status_before;

DROP TABLE status_before;

CREATE INDEX status_build ON status (build) WHERE build IS NOT NULL;
CREATE INDEX status_delivery ON status (delivery) WHERE delivery IS NOT NULL;
CREATE INDEX status_untold ON status (due_ms) WHERE told = 0;

CREATE VIEW statuses AS
SELECT repository, sha, context, build, record ->> '$.state' AS state, record ->> '$.description' AS description,
    told, due_ms, record ->> '$.trouble' AS trouble, delivery
FROM status;
