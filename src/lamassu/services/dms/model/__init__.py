"""A device manufacturing system (DMS): who may enroll through it, how, and under what."""
