"""Processes in which libraries are loaded that may end theirs: starting them, serving, shared memory."""
