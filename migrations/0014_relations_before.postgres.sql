-- What was stored before relations were kept apart. An event with a NUL somewhere is left out: it can't be looked into.
INSERT INTO relations (room_sn, target, topo, topo_minor, rel_type, sn, event_id, type, sender, key, replaces, ts)
SELECT e.room_sn, e.target, e.topo, e.topo_minor, e.rel_type, e.sn, e.event_id, e.type, e.sender,
    CASE WHEN e.rel_type = 'm.annotation' AND e.key_type = 'string' AND OCTET_LENGTH(e.key) <= 500 THEN e.key ELSE '' END,
    CASE WHEN e.state_key IS NULL AND (e.type = 'm.room.encrypted' OR e.new_type = 'object') THEN 1 ELSE 0 END,
    e.ts
FROM (
    SELECT room_sn, topo, topo_minor, sn, event_id, type, sender, state_key,
        event #>> '{content,m.relates_to,event_id}' AS target,
        event #>> '{content,m.relates_to,rel_type}' AS rel_type,
        event #>> '{content,m.relates_to,key}' AS key,
        json_typeof(event #> '{content,m.relates_to,event_id}') AS target_type,
        json_typeof(event #> '{content,m.relates_to,rel_type}') AS rel_type_type,
        json_typeof(event #> '{content,m.relates_to,key}') AS key_type,
        json_typeof(event #> '{content,m.new_content}') AS new_type,
        CAST(event ->> 'origin_server_ts' AS BIGINT) AS ts
    FROM (
        SELECT room_sn, topo, topo_minor, sn, event_id, type, sender, state_key,
            CASE WHEN STRPOS(json, '"m.relates_to"') > 0 AND STRPOS(json, '\u0000') = 0 THEN CAST(json AS JSON) END AS event
        FROM events WHERE status = 0 AND redacted_by IS NULL
    ) parsed
    WHERE event IS NOT NULL
) e
WHERE e.target_type = 'string' AND e.rel_type_type = 'string' AND STARTS_WITH(e.target, '$')
    AND OCTET_LENGTH(e.target) <= 255 AND OCTET_LENGTH(e.rel_type) BETWEEN 1 AND 255;

INSERT INTO threads (room_sn, root, topo, topo_minor)
SELECT r.room_sn, r.target, r.topo, r.topo_minor FROM relations r
WHERE r.rel_type = 'm.thread'
    AND NOT EXISTS (SELECT 1 FROM relations l WHERE l.room_sn = r.room_sn AND l.target = r.target
        AND l.rel_type = 'm.thread' AND (l.topo, l.topo_minor) > (r.topo, r.topo_minor))
    AND NOT EXISTS (SELECT 1 FROM events t JOIN relations o ON o.sn = t.sn WHERE t.event_id = r.target);
