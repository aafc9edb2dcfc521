"""From files to batches: read, check, split, collate."""
