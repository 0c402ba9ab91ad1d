"""Atomic files and locks."""
