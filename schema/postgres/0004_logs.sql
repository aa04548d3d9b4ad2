-- Logs of builds: how far each is, where its sealed parts are, and the tail that is not sealed yet. The sealed
-- parts themselves are objects, in a bucket or a folder that all brokers share. The tables are those of the
-- embedded store.

CREATE TABLE log (
    build    BIGINT NOT NULL,
    attempt  BIGINT NOT NULL,
    revision BIGINT NOT NULL, -- grows by one with each write
    settled  BIGINT NOT NULL, -- 1: it has ended, and all of it is sealed
    record   TEXT NOT NULL,
    PRIMARY KEY (build, attempt)
);

CREATE INDEX log_unsettled ON log (build, attempt) WHERE settled = 0;

CREATE VIEW logs AS
SELECT build, attempt, (shown ->> 'bytes')::bigint AS bytes, (shown ->> 'lines')::bigint AS lines,
    (shown -> 'gap' ->> 'from')::bigint AS gap_from, (shown -> 'gap' ->> 'to')::bigint AS gap_to,
    shown -> 'end' ->> 'sha256' AS sha256, shown ->> 'folder' AS folder,
    (shown ->> 'changed_ms')::bigint AS changed_ms, settled
FROM (SELECT *, record::json AS shown FROM log) AS log;

CREATE TABLE log_segment (
    build      BIGINT NOT NULL,
    attempt    BIGINT NOT NULL,
    from_byte  BIGINT NOT NULL,
    first_line BIGINT NOT NULL, -- the first that begins in it or after it
    record     TEXT NOT NULL,
    PRIMARY KEY (build, attempt, from_byte)
);

CREATE INDEX log_segment_line ON log_segment (build, attempt, first_line, from_byte);

CREATE VIEW log_segments AS
SELECT build, attempt, from_byte, (shown ->> 'length')::bigint AS bytes, (shown ->> 'lines')::bigint AS lines,
    shown ->> 'object' AS object, (shown ->> 'stored')::bigint AS stored_bytes
FROM (SELECT *, record::json AS shown FROM log_segment) AS log_segment;

-- One append each.
CREATE TABLE log_piece (
    build      BIGINT NOT NULL,
    attempt    BIGINT NOT NULL,
    from_byte  BIGINT NOT NULL,
    first_line BIGINT NOT NULL,
    lines      BIGINT NOT NULL, -- that begin in it
    times      BYTEA NOT NULL,  -- when they did, as the text that came with it
    bytes      BYTEA NOT NULL,
    PRIMARY KEY (build, attempt, from_byte)
);

CREATE INDEX log_piece_line ON log_piece (build, attempt, from_byte, first_line);
