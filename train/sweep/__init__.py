"""Sweeps: train a config with every combination of settings, each with several random seeds."""
