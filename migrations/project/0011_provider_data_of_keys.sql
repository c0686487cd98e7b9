-- What a provider wants back is for the model and the key that it was asked with: another account cannot read it.
-- Of what was kept before nobody knows whose it is.

DELETE FROM provider_data;

ALTER TABLE provider_data ADD COLUMN provider_id TEXT NOT NULL DEFAULT '';
ALTER TABLE provider_data ADD COLUMN model_id TEXT NOT NULL DEFAULT '';
-- A code of the key that only this server can compute; empty without a key.
ALTER TABLE provider_data ADD COLUMN key_print TEXT NOT NULL DEFAULT '';
