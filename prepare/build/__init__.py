"""From a manifest to a data file."""
