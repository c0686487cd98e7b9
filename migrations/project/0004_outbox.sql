-- Events that come from the root database are published once: the id there of the last one that was,
-- and its number here.

ALTER TABLE meta ADD COLUMN outbox_id INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN outbox_seq INTEGER NOT NULL DEFAULT 0;
