-- Push rules that somebody changed, and what they make of unread counts.

-- Who changed theirs, and when last. The rules are account data.
CREATE INDEX account_data_push_rules ON account_data (pos) WHERE room_sn = 0 AND type = 'm.push_rules';

-- Of which class somebody is, from a position on: who is of the same is told the same of what doesn't concern them. The
-- untouched rules are the class '', and whoever has no row is of it. A room that no rule was ever about has no rows of its
-- own: there it is what the rows of the room '' say.
CREATE TABLE push_classes (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    since   BIGINT NOT NULL,
    class   TEXT NOT NULL,
    PRIMARY KEY (user_id, room_id, since)
);

-- Whoever changed theirs before this is of a class of their own, until they change them again.
INSERT INTO push_classes (user_id, room_id, since, class)
    SELECT user_id, '', (SELECT pos FROM stream_head WHERE id = 1), 'of ' || user_id FROM account_data
    WHERE room_sn = 0 AND type = 'm.push_rules' AND content IS NOT NULL;
