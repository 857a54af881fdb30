-- Where users want to be told of what happens while they don't sync.

-- A pusher belongs to the session that set it. All up to `done_pos` was looked at for it; there may be more to tell while
-- `wanted_pos` is beyond that. Who holds the lease looks, and tells; after a failure not before `due_ms`.
CREATE TABLE pushers (
    pusher_id      TEXT PRIMARY KEY,
    user_id        TEXT NOT NULL,
    device_id      TEXT NOT NULL,
    app_id         TEXT NOT NULL,
    pushkey        TEXT NOT NULL,
    body           TEXT NOT NULL,   -- the rest of what the client said, as JSON
    set_ms         BIGINT NOT NULL,
    set_pos        BIGINT NOT NULL,
    wanted_pos     BIGINT NOT NULL,
    done_pos       BIGINT NOT NULL,
    badge          BIGINT NOT NULL, -- the number of what is unread that was told last
    failures       BIGINT NOT NULL, -- since it was last told something
    due_ms         BIGINT NOT NULL,
    lease_owner    TEXT,            -- NULL: nobody has held it yet
    lease_until_ms BIGINT NOT NULL
);
CREATE UNIQUE INDEX pushers_key ON pushers (app_id, pushkey, user_id);
CREATE INDEX pushers_user ON pushers (user_id, device_id);
CREATE INDEX pushers_set ON pushers (set_pos);
CREATE INDEX pushers_behind ON pushers (due_ms) WHERE wanted_pos > done_pos;

-- One row: for all that happened up to `pos`, the pushers are marked that want to look at it.
CREATE TABLE push_marks (
    id  BIGINT PRIMARY KEY,
    pos BIGINT NOT NULL
);
INSERT INTO push_marks (id, pos) SELECT 1, h.pos FROM stream_head h WHERE h.id = 1;
