-- People who prove elsewhere who they are.

-- What a browser is in the middle of, between two pages. Only the SHA-256 is kept of what names it and of the cookie of
-- the browser that it belongs to.
CREATE TABLE sso_flows (
    key_hash    BYTEA PRIMARY KEY,
    cookie_hash BYTEA NOT NULL,
    -- What is to come next.
    step        TEXT NOT NULL,
    -- What is known by now, as JSON.
    data        TEXT NOT NULL,
    expires_ms  BIGINT NOT NULL
);
CREATE INDEX sso_flows_expires ON sso_flows (expires_ms);

-- Which user somebody is whom a provider knows. It stays when the account ends, so that nobody comes back as another.
CREATE TABLE external_ids (
    provider   TEXT NOT NULL,
    subject    TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    -- NULL: the provider calls none verified.
    email      TEXT,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (provider, subject)
);
CREATE INDEX external_ids_user ON external_ids (user_id);

-- What a client trades for a session, once. Only the SHA-256 of a token is kept.
CREATE TABLE login_tokens (
    token_hash BYTEA PRIMARY KEY,
    user_id    TEXT NOT NULL,
    -- The login at a provider by which it was made; NULL for that of another session.
    provider   TEXT,
    subject    TEXT,
    -- What the provider calls its own session; NULL if it has no name for it.
    sid        TEXT,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX login_tokens_expires ON login_tokens (expires_ms);
CREATE INDEX login_tokens_provider ON login_tokens (provider, subject);

-- Sessions that began by a login at a provider, so that it can end them.
CREATE TABLE sso_sessions (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    provider  TEXT NOT NULL,
    subject   TEXT NOT NULL,
    -- NULL: the provider has no name for it.
    sid       TEXT,
    PRIMARY KEY (user_id, device_id)
);
CREATE INDEX sso_sessions_subject ON sso_sessions (provider, subject);
CREATE INDEX sso_sessions_sid ON sso_sessions (provider, sid);

-- Which requests of a provider to end sessions have been heard, by the SHA-256 of their ids.
CREATE TABLE sso_logouts (
    provider   TEXT NOT NULL,
    id_hash    BYTEA NOT NULL,
    expires_ms BIGINT NOT NULL,
    PRIMARY KEY (provider, id_hash)
);
CREATE INDEX sso_logouts_expires ON sso_logouts (expires_ms);

-- What users were asked to confirm at a provider, by the SHA-256 of the id that the client was given.
CREATE TABLE sso_confirmations (
    session_hash BYTEA PRIMARY KEY,
    user_id      TEXT NOT NULL,
    -- What they want to do.
    deed         TEXT NOT NULL,
    -- 1: they have confirmed it.
    done         BIGINT NOT NULL,
    expires_ms   BIGINT NOT NULL
);
CREATE INDEX sso_confirmations_user ON sso_confirmations (user_id, expires_ms);
CREATE INDEX sso_confirmations_expires ON sso_confirmations (expires_ms);
