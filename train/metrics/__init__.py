"""Measures of a classifier: accuracy, intervals, ROC, effective sample size."""
