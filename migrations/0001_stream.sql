-- The one ordered stream, the outbox, and what a deployment is.

-- One row. Every change that a client can sync takes a position above it, inside its own transaction.
CREATE TABLE stream_head (
    id  BIGINT PRIMARY KEY,
    pos BIGINT NOT NULL
);
INSERT INTO stream_head (id, pos) VALUES (1, 0);

-- One row a writing process: by it a COMMIT of unknown outcome is settled.
CREATE TABLE lane_marks (
    lane       TEXT PRIMARY KEY,
    batch      BIGINT NOT NULL,
    started_ms BIGINT NOT NULL
);

-- Facts that hold for the whole deployment: server_name and the like.
CREATE TABLE server_facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- Keys that this server signs with.
CREATE TABLE signing_keys (
    key_id     TEXT PRIMARY KEY,
    seed       BYTEA NOT NULL,
    created_ms BIGINT NOT NULL,
    expired_ms BIGINT
);

-- Work that must follow a change, written with the change. Drained under a lease by any process.
CREATE TABLE outbox (
    id           TEXT PRIMARY KEY,
    queue        TEXT NOT NULL,
    payload      TEXT NOT NULL,
    due_ms       BIGINT NOT NULL,
    attempts     BIGINT NOT NULL,
    lease_owner  TEXT,
    lease_until_ms BIGINT NOT NULL
);
CREATE INDEX outbox_due ON outbox (queue, due_ms);
