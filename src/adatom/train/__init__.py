"""One loop, one loss, for every architecture."""
