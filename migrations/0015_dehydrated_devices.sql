-- The device of a user that receives keys of encrypted rooms while none of theirs is there: it has no session, and is
-- brought to life by whichever device comes next. It is among the user's devices, too.
CREATE TABLE dehydrated_devices (
    user_id   TEXT PRIMARY KEY,
    device_id TEXT NOT NULL,
    data      TEXT NOT NULL    -- JSON: its secret part, which only the user can read
);
