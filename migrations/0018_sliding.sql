-- Sliding sync: what a list of rooms is sorted by for people, and what each connection was told.

-- Position of the newest event of a kind that people would call activity: a message, a call, not a change of a topic.
ALTER TABLE rooms ADD COLUMN bump_pos BIGINT NOT NULL DEFAULT 0;
UPDATE rooms SET bump_pos = COALESCE((
    SELECT MAX(e.pos) FROM events e WHERE e.room_sn = rooms.room_sn AND e.type IN (
        'm.room.create', 'm.room.message', 'm.room.encrypted', 'm.sticker', 'm.call.invite',
        'm.poll.start', 'org.matrix.msc3381.poll.start', 'm.beacon_info', 'org.matrix.msc3672.beacon_info')
), 0);

-- A connection of a device, as it was when it was last written down: after the answer, not with it.
CREATE TABLE sliding_connections (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    conn_id   TEXT NOT NULL,
    body      TEXT NOT NULL,     -- what was told, by position, as JSON
    used_ms   BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id, conn_id)
);
