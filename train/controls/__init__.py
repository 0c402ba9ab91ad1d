"""Is it lasing, or the run? The label is the run, so whatever differs between runs can be learned.

`choice` gives shots of a data file
other labels or fewer pixels, `beam_free` finds the pixels without beam, `baselines` is what a
physicist would try first, `experiments` are the controls one by one, `job` runs and keeps them,
`verdict` says in words what they mean.
"""
