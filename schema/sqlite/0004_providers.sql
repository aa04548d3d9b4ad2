-- Resources that a session brings: their origin is `provider:NAME`, and they are offline while no session
-- provides under that name. A version before this one could not read that, so it is a version of its own.

DROP VIEW resources;

CREATE VIEW resources AS
SELECT resource, record ->> '$.spec.name' AS name, record ->> '$.spec.pool' AS pool,
    record ->> '$.spec.slots' AS slots, record ->> '$.spec.labels' AS labels, record ->> '$.origin' AS origin,
    record ->> '$.marks.quarantined' AS quarantined, record ->> '$.marks.drained' AS drained,
    record ->> '$.pending' AS pending, last_used, record ->> '$.marks.offline' AS offline
FROM resource LEFT JOIN resource_used USING (resource);

-- Who brings resources at present.
CREATE VIEW providers AS
SELECT record ->> '$.provides.name' AS name, session, record ->> '$.provides.address' AS address,
    record ->> '$.owner.name' AS owner
FROM session WHERE record ->> '$.provides.name' IS NOT NULL;
