-- Keys of end-to-end encryption, and whose lists of devices changed.

-- The identity keys of a device, as it uploaded them.
CREATE TABLE device_keys (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    json      TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

-- Keys to be given out. The number is made of the position of the upload and the place in it, so that the oldest has the
-- lowest.
CREATE TABLE one_time_keys (
    key_sn    BIGINT PRIMARY KEY,
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    fallback  BIGINT NOT NULL,   -- 0: is given out once; 1: to whoever comes when there is none of those; 2: and has been
    key_id    TEXT NOT NULL,
    json      TEXT NOT NULL
);
CREATE UNIQUE INDEX one_time_keys_device ON one_time_keys (user_id, device_id, algorithm, fallback, key_sn);

-- Where what is left of the keys above last changed.
CREATE TABLE key_counts (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    pos       BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
CREATE INDEX key_counts_pos ON key_counts (pos);

-- Cross-signing: usage is master, self_signing or user_signing.
CREATE TABLE cross_signing_keys (
    user_id TEXT NOT NULL,
    usage   TEXT NOT NULL,
    json    TEXT NOT NULL,
    PRIMARY KEY (user_id, usage)
);

-- Signatures beside those that came with a key: of a device ('device' and its id) or of a master key ('master' and its
-- public half).
CREATE TABLE key_signatures (
    target_user TEXT NOT NULL,
    kind        TEXT NOT NULL,
    target      TEXT NOT NULL,
    signer      TEXT NOT NULL,
    signer_key  TEXT NOT NULL,
    signature   TEXT NOT NULL,
    pos         BIGINT NOT NULL,
    PRIMARY KEY (target_user, kind, target, signer, signer_key)
);
CREATE INDEX key_signatures_signer ON key_signatures (signer, pos);
CREATE INDEX key_signatures_pos ON key_signatures (pos);

-- Where a user's devices, or the keys that others know them by, last changed. Who has to be told is found when they ask.
CREATE TABLE device_lists (
    user_id TEXT PRIMARY KEY,
    pos     BIGINT NOT NULL
);
CREATE INDEX device_lists_pos ON device_lists (pos);

-- Who came to a room or left it since a token.
CREATE INDEX membership_changes_room ON membership_changes (room_sn, pos);
