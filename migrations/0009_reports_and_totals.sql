-- What users have reported to the operator.

CREATE TABLE reports (
    report_id TEXT PRIMARY KEY,
    reporter  TEXT NOT NULL,
    -- What is reported: an event of a room, by its sender; a room; or a user. What it is not about is an empty text.
    room_id   TEXT NOT NULL,
    event_id  TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    reason    TEXT NOT NULL,
    at_ms     BIGINT NOT NULL
);
-- Somebody has one report about a thing, and so many in all.
CREATE UNIQUE INDEX reports_of ON reports (reporter, room_id, event_id, user_id);
CREATE INDEX reports_at ON reports (at_ms, report_id);

-- How much each user keeps as account data, so that what they may still add is known without reading it all. Not counted
-- is what the server writes by endpoints of their own, of types that clients can't set.
CREATE TABLE account_data_totals (
    user_id TEXT PRIMARY KEY,
    entries BIGINT NOT NULL,
    bytes   BIGINT NOT NULL
);
INSERT INTO account_data_totals (user_id, entries, bytes)
    SELECT user_id, COUNT(*), CAST(COALESCE(SUM(OCTET_LENGTH(content)), 0) AS BIGINT) FROM account_data
    WHERE type NOT IN ('m.fully_read', 'm.push_rules') GROUP BY user_id;
