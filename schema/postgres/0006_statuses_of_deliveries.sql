-- A status may be of a delivery instead of a build: what is wrong with the pipelines of its commit.

ALTER TABLE status ALTER COLUMN build DROP NOT NULL;
ALTER TABLE status ADD COLUMN delivery BIGINT;
ALTER TABLE status ADD CHECK ((build IS NULL) <> (delivery IS NULL));

CREATE INDEX status_delivery ON status (delivery) WHERE delivery IS NOT NULL;

-- With the new column at its end, so that it is the same view still, with the rights that people have on it.
CREATE OR REPLACE VIEW statuses AS
SELECT repository, sha, context, build, shown ->> 'state' AS state, shown ->> 'description' AS description,
    told, due_ms, shown ->> 'trouble' AS trouble, delivery
FROM (SELECT *, replace(record, '\u0000', '\ufffd')::json AS shown FROM status) AS status;
