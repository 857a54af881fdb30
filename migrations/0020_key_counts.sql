-- What of a device's keys was given out, by algorithm. A one-time key that is given out is no longer written to: only how
-- far they were given, which for many devices fits on few pages. The next upload removes what lies before it.
DROP INDEX key_counts_pos;
ALTER TABLE key_counts RENAME TO key_counts_before;
CREATE TABLE key_counts (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    pos       BIGINT NOT NULL,   -- where what is left last changed
    given     BIGINT NOT NULL,   -- the number of the last one-time key that was given out; 0 if none was
    PRIMARY KEY (user_id, device_id, algorithm)
);
INSERT INTO key_counts SELECT user_id, device_id, 'signed_curve25519', pos, 0 FROM key_counts_before;
DROP TABLE key_counts_before;
CREATE INDEX key_counts_pos ON key_counts (pos);
