-- Messages from device to device that wait for their device to fetch them.

-- Deleted when the device comes back with the token of the answer that told it. `n` counts the messages of one queue, so
-- that its length is known from its first and its last; it begins anew when the queue has been empty.
CREATE TABLE to_device (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    pos       BIGINT NOT NULL,
    n         BIGINT NOT NULL,
    sender    TEXT NOT NULL,
    type      TEXT NOT NULL,
    content   TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id, pos)
);
CREATE INDEX to_device_pos ON to_device (pos);
