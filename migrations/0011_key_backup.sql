-- Copies of the keys to encrypted rooms, which users keep here and only they can read.

-- A row for each user who ever had a backup. Who changes anything of their backups updates this row first, so that one
-- waits for the other.
CREATE TABLE key_backups (
    user_id      TEXT PRIMARY KEY,
    last_version BIGINT NOT NULL      -- a number is given once, also where a backup was deleted
);

CREATE TABLE key_backup_versions (
    user_id   TEXT NOT NULL,
    version   BIGINT NOT NULL,
    algorithm TEXT NOT NULL,
    auth_data TEXT NOT NULL,
    count     BIGINT NOT NULL,        -- keys in it
    etag      BIGINT NOT NULL,        -- grows with each change of the keys
    PRIMARY KEY (user_id, version)
);

-- Those of a version that was deleted are removed by and by.
CREATE TABLE key_backup_keys (
    user_id      TEXT NOT NULL,
    version      BIGINT NOT NULL,
    room_id      TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    is_verified  BIGINT NOT NULL,
    first_message_index BIGINT NOT NULL,
    forwarded_count BIGINT NOT NULL,
    session_data TEXT NOT NULL,
    PRIMARY KEY (user_id, version, room_id, session_id)
);
