-- What waits for a device is bounded by its bytes, too: how many all messages have that were put into the queue up to this
-- one, since it was empty. What waits from before counts for nothing.
ALTER TABLE to_device ADD COLUMN total BIGINT NOT NULL DEFAULT 0;
