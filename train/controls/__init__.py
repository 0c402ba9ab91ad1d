"""Controls: does the accuracy come from lasing, or from other differences between the runs?

Labels are given to whole runs, so a network can learn whatever differs between the runs.
`controls` holds the controls, one function each; add a new one there. `choice` relabels or masks
the shots of a data file, `beam_free` finds pixels without beam, `baselines` are simple regressions,
`outcome` is one row of results, `record` stores the rows, `verdict` explains them, `job` runs it all.
"""
