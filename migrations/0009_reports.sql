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
