-- What pages said of themselves when somebody last looked. The link itself is not kept: it may have been written in an
-- encrypted room.
CREATE TABLE url_previews (
    url_sha256 BYTEA PRIMARY KEY,
    -- What clients are told, as JSON.
    answer     TEXT NOT NULL,
    at_ms      BIGINT NOT NULL,
    -- When somebody has to look again.
    expires_ms BIGINT NOT NULL
);
CREATE INDEX url_previews_expiry ON url_previews (expires_ms);
