-- The search across logs: what is still to be indexed, and the embedded index.

-- One row: which index the queue is for; empty before there was any.
CREATE TABLE search_aim (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    target TEXT NOT NULL
) STRICT;

INSERT INTO search_aim VALUES (1, '');

-- Logs whose index is not what they are.
CREATE TABLE search_queue (
    build   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    gone    INTEGER NOT NULL, -- 1: the log was deleted
    PRIMARY KEY (build, attempt)
) STRICT, WITHOUT ROWID;

-- A log is queued in the transaction that settles or deletes it: none is ever left out.
CREATE TRIGGER search_settled AFTER UPDATE OF settled ON log WHEN NEW.settled = 1 AND OLD.settled = 0
BEGIN
    INSERT INTO search_queue VALUES (NEW.build, NEW.attempt, 0) ON CONFLICT DO UPDATE SET gone = 0;
END;

CREATE TRIGGER search_settled_at_once AFTER INSERT ON log WHEN NEW.settled = 1
BEGIN
    INSERT INTO search_queue VALUES (NEW.build, NEW.attempt, 0) ON CONFLICT DO UPDATE SET gone = 0;
END;

CREATE TRIGGER search_gone AFTER DELETE ON log
BEGIN
    INSERT INTO search_queue VALUES (OLD.build, OLD.attempt, 1) ON CONFLICT DO UPDATE SET gone = 1;
END;

-- Pieces of logs. The number is made of build and attempt, and counts down within a log: going down is newer
-- builds first, and in each from its first line on.
CREATE TABLE search_piece (
    piece      INTEGER PRIMARY KEY,
    first_line INTEGER NOT NULL,
    last_line  INTEGER NOT NULL
) STRICT;

-- The words of each piece, by its number. They come in lower case and with spaces between, each once; which
-- place they have does not matter, so none is kept.
CREATE VIRTUAL TABLE search_word USING fts5 (
    words, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);
