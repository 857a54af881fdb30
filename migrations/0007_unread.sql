-- Unread counts by subtraction: what was counted up to a position, for whole classes of members at once.

-- What the events up to `pos` would have counted for a member whose push rules are of this class, were none of it read.
-- A class is a set of rules ('' the untouched ones) or a user id: what that user was told beyond their class. The thread
-- is its root, or 'main'. The sender is '' for all senders, else what this one sent. A row is made where something counts.
CREATE TABLE push_totals (
    room_sn   BIGINT NOT NULL,
    class     TEXT NOT NULL,
    thread    TEXT NOT NULL,
    sender    TEXT NOT NULL,
    pos       BIGINT NOT NULL,
    notify    BIGINT NOT NULL,
    highlight BIGINT NOT NULL,
    PRIMARY KEY (room_sn, class, thread, sender, pos)
);

-- Counted once, and redacted since: to be taken off by whoever has not read up to `pos`, where the event was.
CREATE TABLE push_redacted (
    room_sn   BIGINT NOT NULL,
    class     TEXT NOT NULL,
    thread    TEXT NOT NULL,
    pos       BIGINT NOT NULL,
    sender    TEXT NOT NULL,
    notify    BIGINT NOT NULL,
    highlight BIGINT NOT NULL,
    PRIMARY KEY (room_sn, class, thread, pos)
);

-- Threads, other than the main timeline, in which something counted: where it last did.
CREATE TABLE push_threads (
    room_sn  BIGINT NOT NULL,
    thread   TEXT NOT NULL,
    last_pos BIGINT NOT NULL,
    PRIMARY KEY (room_sn, thread)
);
CREATE INDEX push_threads_last ON push_threads (room_sn, last_pos);

ALTER TABLE events ADD COLUMN thread TEXT;  -- the root of the thread that it belongs to; NULL: the main timeline
ALTER TABLE events ADD COLUMN counted TEXT; -- what it counted, by class, as JSON; NULL: nothing

-- Where in the timeline the event is up to which was read; 0 while it is not here.
ALTER TABLE receipts ADD COLUMN read_pos BIGINT NOT NULL DEFAULT 0;
UPDATE receipts SET read_pos = COALESCE((SELECT MAX(e.topo) FROM events e
    WHERE e.event_id = receipts.event_id AND e.room_sn = receipts.room_sn), 0);
