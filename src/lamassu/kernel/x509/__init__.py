"""X.509 words: bounded parsing, names, keys, paths, messages. No I/O, no clock."""
