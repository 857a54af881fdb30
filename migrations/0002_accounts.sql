-- People, their devices and tokens, and what they keep on the server.

CREATE TABLE users (
    user_id       TEXT PRIMARY KEY,
    password_hash TEXT,
    admin         BIGINT NOT NULL,
    deactivated   BIGINT NOT NULL,
    created_ms    BIGINT NOT NULL
);

-- Profile fields, each a JSON value under its key (displayname, avatar_url, ...).
CREATE TABLE profile_fields (
    user_id TEXT NOT NULL,
    key     TEXT NOT NULL,
    value   TEXT NOT NULL,
    PRIMARY KEY (user_id, key)
);

CREATE TABLE devices (
    user_id      TEXT NOT NULL,
    device_id    TEXT NOT NULL,
    display_name TEXT,
    created_ms   BIGINT NOT NULL,
    last_seen_ms BIGINT,
    last_seen_ip TEXT,
    PRIMARY KEY (user_id, device_id)
);

-- Only the SHA-256 of a token is kept.
CREATE TABLE access_tokens (
    token_hash BYTEA PRIMARY KEY,
    user_id    TEXT NOT NULL,
    device_id  TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT
);
CREATE INDEX access_tokens_device ON access_tokens (user_id, device_id);

-- Sessions that ended, so that another process drops them from its cache. An empty device_id stands for any of the
-- user's devices: what ends together takes one position.
CREATE TABLE revocations (
    pos       BIGINT PRIMARY KEY,
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    at_ms     BIGINT NOT NULL
);

CREATE TABLE registration_tokens (
    token        TEXT PRIMARY KEY,
    uses_allowed BIGINT,
    uses         BIGINT NOT NULL,
    expires_ms   BIGINT,
    makes_admin  BIGINT NOT NULL,
    created_ms   BIGINT NOT NULL
);

-- room_sn 0 is the account itself. A deleted value is kept as NULL content, so that a sync can tell of it.
CREATE TABLE account_data (
    user_id TEXT NOT NULL,
    room_sn BIGINT NOT NULL,
    type    TEXT NOT NULL,
    content TEXT,
    pos     BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_sn, type)
);
CREATE INDEX account_data_pos ON account_data (user_id, pos);
CREATE INDEX account_data_changed ON account_data (pos);

CREATE TABLE filters (
    user_id   TEXT NOT NULL,
    filter_id TEXT NOT NULL,
    body      TEXT NOT NULL,
    PRIMARY KEY (user_id, filter_id)
);

-- What a transaction id of a device led to. Purged when old.
CREATE TABLE transactions (
    user_id    TEXT NOT NULL,
    device_id  TEXT NOT NULL,
    txn_id     TEXT NOT NULL,
    scope      TEXT NOT NULL,
    result     TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id, txn_id, scope)
);
CREATE INDEX transactions_created ON transactions (created_ms);
