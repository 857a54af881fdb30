-- Files that people share.

-- What the media store holds, a row for each different content.
CREATE TABLE media_files (
    -- What the store calls it.
    file_key TEXT PRIMARY KEY,
    sha256   BYTEA NOT NULL,
    bytes    BIGINT NOT NULL,
    -- What it is by its own first bytes.
    sniffed  TEXT NOT NULL
);
CREATE UNIQUE INDEX media_files_hash ON media_files (sha256);

-- What the store may hold that no row above accounts for: it is being written, or to be removed. At the time it is
-- removed from there, if it still stands here.
CREATE TABLE media_unaccounted (
    file_key TEXT PRIMARY KEY,
    due_ms   BIGINT NOT NULL
);
CREATE INDEX media_unaccounted_due ON media_unaccounted (due_ms);

-- What an mxc: URI stands for.
CREATE TABLE media (
    server_name  TEXT NOT NULL,
    media_id     TEXT NOT NULL,
    -- "local": somebody's upload; "preview": a picture of a page that the server looked at.
    kind         TEXT NOT NULL,
    -- NULL: nobody of ours.
    user_id      TEXT,
    created_ms   BIGINT NOT NULL,
    -- NULL: nothing was uploaded yet, which may be done until expires_ms.
    file_key     TEXT,
    expires_ms   BIGINT,
    content_type TEXT,
    file_name    TEXT,
    -- When somebody last looked, by the day or so.
    used_ms      BIGINT NOT NULL,
    PRIMARY KEY (server_name, media_id)
);
CREATE INDEX media_of_file ON media (file_key);
CREATE INDEX media_expiring ON media (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE INDEX media_by_age ON media (kind, created_ms);
CREATE INDEX media_by_use ON media (kind, used_ms);

-- How much somebody has uploaded, and how many URIs they have that nothing was uploaded to.
CREATE TABLE media_totals (
    user_id TEXT PRIMARY KEY,
    files   BIGINT NOT NULL,
    bytes   BIGINT NOT NULL,
    waiting BIGINT NOT NULL
);

-- What was made of a picture.
CREATE TABLE media_thumbnails (
    file_key     TEXT NOT NULL,
    -- Its size, and how it came to it.
    variant      TEXT NOT NULL,
    thumb_key    TEXT NOT NULL,
    content_type TEXT NOT NULL,
    created_ms   BIGINT NOT NULL,
    PRIMARY KEY (file_key, variant)
);
CREATE INDEX media_thumbnails_of_file ON media_thumbnails (thumb_key);
