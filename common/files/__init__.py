"""Files that appear complete or not at all, one process at a time."""
