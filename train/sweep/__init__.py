"""Grids of settings, each with several seeds."""
