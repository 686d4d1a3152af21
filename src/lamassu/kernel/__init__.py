"""Words that every slice speaks. Nothing here does I/O."""
