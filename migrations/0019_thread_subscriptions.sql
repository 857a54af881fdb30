-- Which threads somebody follows, and which no longer: a row is the last change.
CREATE TABLE thread_subscriptions (
    user_id TEXT NOT NULL,
    room_sn BIGINT NOT NULL,
    root    TEXT NOT NULL,     -- the id of the event that the thread begins with
    mode    BIGINT NOT NULL,   -- 0: not any more; 1: a client did it for them; 2: they did it themselves
    pos     BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_sn, root)
);
CREATE INDEX thread_subscriptions_pos ON thread_subscriptions (user_id, pos);
CREATE INDEX thread_subscriptions_changed ON thread_subscriptions (pos);
