-- Of a thread with thousands of answers, what belongs to them is found by its place in the room.
CREATE INDEX relations_by_place ON relations (room_sn, topo, topo_minor);
