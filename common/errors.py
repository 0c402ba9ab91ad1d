"""Errors that a user can fix. Each message is one line: where, which value, what to do next."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can fix; commands print it as one line and exit with code 2."""


class ConfigError(UserError):
    """A config file that cannot be read or does not validate: file, line, key, value."""


class ManifestError(UserError):
    """A manifest that cannot be read, or that asks for what the data do not have."""


class DataError(UserError):
    """A data file (XTC or HDF5) that is missing, damaged or not of the expected kind."""


class OutputExists(UserError):
    """A finished file stands where a new one would go."""


class OutputBusy(UserError):
    """Another process is writing there."""
