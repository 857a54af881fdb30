-- Sessions whose access token is renewed now and then.

-- Only the SHA-256 of a token is kept.
CREATE TABLE refresh_tokens (
    token_hash BYTEA PRIMARY KEY,
    user_id    TEXT NOT NULL,
    device_id  TEXT NOT NULL,
    -- The token that this one was traded for, which lives until this one, or the access token beside it, is used for the
    -- first time: the answer that carried the two may have been lost. NULL once that has happened, and for the first
    -- token of a session.
    replaces   BYTEA,
    created_ms BIGINT NOT NULL,
    -- NULL: never.
    expires_ms BIGINT
);
CREATE INDEX refresh_tokens_device ON refresh_tokens (user_id, device_id);

-- The refresh token that came with it; NULL if none did.
ALTER TABLE access_tokens ADD COLUMN refresh_hash BYTEA;
