"""Pure maths of the audit: arrays in, arrays out; no files, no settings, no tables."""
