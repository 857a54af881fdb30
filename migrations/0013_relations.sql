-- Which events relate to which: for the pages of those that belong to one, and for what is told of them beside it.

-- An event that relates to another, by that one's id: it need not be here, and may be in another room. Only what is shown
-- relates; what is redacted relates no more, and its row goes.
CREATE TABLE relations (
    room_sn    BIGINT NOT NULL,
    target     TEXT NOT NULL,
    topo       BIGINT NOT NULL, -- the place in the timeline of the event that relates
    topo_minor BIGINT NOT NULL,
    rel_type   TEXT NOT NULL,
    sn         BIGINT NOT NULL, -- its number
    event_id   TEXT NOT NULL,
    type       TEXT NOT NULL,
    sender     TEXT NOT NULL,
    key        TEXT NOT NULL,   -- what an annotation says; else empty
    replaces   BIGINT NOT NULL, -- 1: it has all that a replacement needs, for what can be told without its target
    ts         BIGINT NOT NULL, -- when it was sent, as it says
    PRIMARY KEY (room_sn, target, topo, topo_minor)
);
-- Who says what of an event: the newest edit by its sender, the same reaction again, who takes part in a thread.
CREATE INDEX relations_by ON relations (room_sn, target, rel_type, sender, type, key, ts, event_id);
CREATE UNIQUE INDEX relations_sn ON relations (sn);

-- The threads of a room, and where the newest event of each stands.
CREATE TABLE threads (
    room_sn    BIGINT NOT NULL,
    root       TEXT NOT NULL,
    topo       BIGINT NOT NULL,
    topo_minor BIGINT NOT NULL,
    PRIMARY KEY (room_sn, root)
);
CREATE INDEX threads_newest ON threads (room_sn, topo, topo_minor);
