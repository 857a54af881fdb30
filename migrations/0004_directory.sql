-- The directory: rooms that show themselves to strangers. (Aliases came with the rooms.)

CREATE TABLE published_rooms (
    room_sn BIGINT PRIMARY KEY
);
