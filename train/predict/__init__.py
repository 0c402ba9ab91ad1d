"""Prediction: apply a trained network to shots."""
