"""What a page shows of a property: one file for each kind of record, each with a function ``section``."""
