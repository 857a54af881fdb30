-- Members of a room come in the order of their ids, so that some of them can be had without reading all of them.
DROP INDEX memberships_room;
CREATE INDEX memberships_room ON memberships (room_sn, membership, user_id);

-- The first members of a room, whatever else its state is.
CREATE INDEX current_state_delta_members ON current_state_delta (room_sn, pos) WHERE type = 'm.room.member';
