-- Logs of builds: how far each is, where its sealed parts are, and the tail that is not sealed yet. The sealed
-- parts themselves are objects, in a folder beside this file or in a bucket.

CREATE TABLE log (
    build    INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,
    revision INTEGER NOT NULL, -- grows by one with each write
    settled  INTEGER NOT NULL, -- 1: it has ended, and all of it is sealed
    record   TEXT NOT NULL,
    PRIMARY KEY (build, attempt)
) STRICT, WITHOUT ROWID;

CREATE INDEX log_unsettled ON log (build, attempt) WHERE settled = 0;

CREATE VIEW logs AS
SELECT build, attempt, record ->> '$.bytes' AS bytes, record ->> '$.lines' AS lines,
    record ->> '$.gap.from' AS gap_from, record ->> '$.gap.to' AS gap_to, record ->> '$.end.sha256' AS sha256,
    record ->> '$.folder' AS folder, record ->> '$.changed_ms' AS changed_ms, settled
FROM log;

CREATE TABLE log_segment (
    build      INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    from_byte  INTEGER NOT NULL,
    first_line INTEGER NOT NULL, -- the first that begins in it or after it
    record     TEXT NOT NULL,
    PRIMARY KEY (build, attempt, from_byte)
) STRICT, WITHOUT ROWID;

CREATE INDEX log_segment_line ON log_segment (build, attempt, first_line, from_byte);

CREATE VIEW log_segments AS
SELECT build, attempt, from_byte, record ->> '$.length' AS bytes, record ->> '$.lines' AS lines,
    record ->> '$.object' AS object, record ->> '$.stored' AS stored_bytes
FROM log_segment;

-- One append each.
CREATE TABLE log_piece (
    build      INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    from_byte  INTEGER NOT NULL,
    first_line INTEGER NOT NULL,
    lines      INTEGER NOT NULL, -- that begin in it
    times      BLOB NOT NULL,    -- when they did, as the text that came with it
    bytes      BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX log_piece_place ON log_piece (build, attempt, from_byte, first_line);
