"""The folder of a run, runs/NAME/."""
