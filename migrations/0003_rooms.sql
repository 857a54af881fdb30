-- Rooms: the event graph, the state at each event, and the current state by position.

-- Where the numbers of events come from: a process takes a block at a time, so an event has its number before it is
-- stored, and a state that names it can be made outside of the transaction.
CREATE TABLE event_numbers (
    id   BIGINT PRIMARY KEY,
    next BIGINT NOT NULL
);
INSERT INTO event_numbers (id, next) VALUES (1, 1);

CREATE TABLE rooms (
    room_sn    BIGINT PRIMARY KEY,   -- the number of its create event
    room_id    TEXT NOT NULL UNIQUE,
    version    TEXT NOT NULL,
    rev        BIGINT NOT NULL,      -- revision of the current state: what a writer compares
    state_root BYTEA NOT NULL,       -- current state, as a root in state_nodes
    joined     BIGINT NOT NULL,      -- members by membership, kept with the state
    invited    BIGINT NOT NULL,
    tips       BYTEA NOT NULL,       -- packed numbers of the events that no other names as prev: what the next builds on
    last_pos   BIGINT NOT NULL,      -- position of the newest timeline event
    touched_pos BIGINT NOT NULL      -- position of the newest change of any kind that its members sync
);
CREATE INDEX rooms_touched ON rooms (touched_pos);

-- An event has one number for life, `sn`. Timeline events have a position; outliers and history fetched later have none,
-- so no sync ever shows them as new.
-- (topo, topo_minor) orders a room's timeline for paging: a live event has (pos, 0), history that fills the gap before it
-- has (pos, -1), (pos, -2) and so on, backwards. A sync reads by the same order and leaves out what has no position, which
-- spares each event an index on it.
CREATE TABLE events (
    sn           BIGINT PRIMARY KEY,
    event_id     TEXT NOT NULL UNIQUE,
    room_sn      BIGINT NOT NULL,
    pos          BIGINT,
    topo         BIGINT NOT NULL,
    topo_minor   BIGINT NOT NULL,
    depth        BIGINT NOT NULL,
    type         TEXT NOT NULL,
    state_key    TEXT,
    sender       TEXT NOT NULL,
    status       BIGINT NOT NULL,    -- 0 accepted, 1 soft-failed, 2 rejected, 3 outlier
    state_before BYTEA,              -- root in state_nodes; NULL while unknown
    state_after  BYTEA,
    prev_sns     BYTEA NOT NULL,     -- packed numbers of prev_events and auth_events that are here
    auth_sns     BYTEA NOT NULL,
    device_id    TEXT,               -- who sent it, for unsigned.transaction_id
    txn_id       TEXT,
    redacted_by  TEXT,
    json         TEXT NOT NULL       -- the PDU, canonical; the redacted form once it is redacted
);
CREATE INDEX events_topo ON events (room_sn, topo, topo_minor);

-- The state at an event is a persistent hash trie; equal states of a room have equal roots and share their nodes.
CREATE TABLE state_nodes (
    room_sn BIGINT NOT NULL,
    hash    BYTEA NOT NULL,
    body    BYTEA NOT NULL,
    PRIMARY KEY (room_sn, hash)
);

CREATE TABLE current_state (
    room_sn   BIGINT NOT NULL,
    type      TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_sn  BIGINT NOT NULL,
    pos       BIGINT NOT NULL,
    PRIMARY KEY (room_sn, type, state_key)
);

-- Each change of the current state, at the position where it became current: a merge of forks can make an old event
-- current, or take one away (event_sn NULL).
CREATE TABLE current_state_delta (
    room_sn   BIGINT NOT NULL,
    pos       BIGINT NOT NULL,
    type      TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_sn  BIGINT,
    prev_sn   BIGINT,
    PRIMARY KEY (room_sn, pos, type, state_key)
);
CREATE INDEX current_state_delta_key ON current_state_delta (room_sn, type, state_key, pos);

-- The current membership of each user in each room, from the current state.
CREATE TABLE memberships (
    user_id    TEXT NOT NULL,
    room_sn    BIGINT NOT NULL,
    membership TEXT NOT NULL,
    event_sn   BIGINT NOT NULL,
    pos        BIGINT NOT NULL,
    forgotten  BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_sn)
);
CREATE INDEX memberships_room ON memberships (room_sn, membership);

-- Each change of a membership, so that a token of any age sees joins and leaves between.
CREATE TABLE membership_changes (
    user_id    TEXT NOT NULL,
    pos        BIGINT NOT NULL,
    room_sn    BIGINT NOT NULL,
    membership TEXT NOT NULL,
    prev       TEXT,
    event_sn   BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_sn, pos)
);
CREATE INDEX membership_changes_pos ON membership_changes (pos);
CREATE INDEX membership_changes_user ON membership_changes (user_id, pos);

-- A redaction that arrived, whether or not its target is here yet.
CREATE TABLE redactions (
    room_sn      BIGINT NOT NULL,
    target_id    TEXT NOT NULL,
    redaction_sn BIGINT NOT NULL,
    PRIMARY KEY (room_sn, target_id, redaction_sn)
);

-- thread '' is unthreaded.
CREATE TABLE receipts (
    room_sn  BIGINT NOT NULL,
    user_id  TEXT NOT NULL,
    type     TEXT NOT NULL,
    thread   TEXT NOT NULL,
    event_id TEXT NOT NULL,
    ts       BIGINT NOT NULL,
    pos      BIGINT NOT NULL,
    PRIMARY KEY (room_sn, user_id, type, thread)
);
CREATE INDEX receipts_pos ON receipts (room_sn, pos);
CREATE INDEX receipts_private ON receipts (pos) WHERE type = 'm.read.private';

CREATE TABLE aliases (
    alias   TEXT PRIMARY KEY,
    room_sn BIGINT NOT NULL,
    creator TEXT NOT NULL
);
CREATE INDEX aliases_room ON aliases (room_sn);
