-- Who can be found: of each active user the text that a search looks in, their id and display name in lower case.
CREATE TABLE user_directory (
    user_id TEXT PRIMARY KEY,
    words   TEXT NOT NULL
);
INSERT INTO user_directory (user_id, words)
    SELECT u.user_id, LOWER(u.user_id || ' ' || COALESCE(p.value, ''))
    FROM users u LEFT JOIN profile_fields p ON p.user_id = u.user_id AND p.key = 'displayname'
    WHERE u.deactivated = 0;
