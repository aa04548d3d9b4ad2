-- The search across logs: what is still to be indexed, and the embedded index.

-- One row: which index the queue is for; empty before there was any.
CREATE TABLE search_aim (
    one    BIGINT PRIMARY KEY CHECK (one = 1),
    target TEXT NOT NULL
);

INSERT INTO search_aim VALUES (1, '');

-- Logs whose index is not what they are.
CREATE TABLE search_queue (
    build   BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    gone    BIGINT NOT NULL, -- 1: the log was deleted
    PRIMARY KEY (build, attempt)
);

-- A log is queued in the transaction that settles or deletes it: none is ever left out.
CREATE FUNCTION search_queue_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO search_queue VALUES (OLD.build, OLD.attempt, 1)
        ON CONFLICT (build, attempt) DO UPDATE SET gone = 1;
    ELSE
        INSERT INTO search_queue VALUES (NEW.build, NEW.attempt, 0)
        ON CONFLICT (build, attempt) DO UPDATE SET gone = 0;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER search_settled AFTER UPDATE OF settled ON log
FOR EACH ROW WHEN (NEW.settled = 1 AND OLD.settled = 0) EXECUTE FUNCTION search_queue_log();

CREATE TRIGGER search_settled_at_once AFTER INSERT ON log
FOR EACH ROW WHEN (NEW.settled = 1) EXECUTE FUNCTION search_queue_log();

CREATE TRIGGER search_gone AFTER DELETE ON log FOR EACH ROW EXECUTE FUNCTION search_queue_log();

-- Pieces of logs, with the words of each. The number is made of build and attempt, and counts down within a
-- log: going down is newer builds first, and in each from its first line on.
CREATE TABLE search_piece (
    piece      BIGINT PRIMARY KEY,
    first_line BIGINT NOT NULL,
    last_line  BIGINT NOT NULL,
    words      TSVECTOR NOT NULL -- as they were handed over: no dictionary has a say
);

CREATE INDEX search_piece_words ON search_piece USING gin (words);
