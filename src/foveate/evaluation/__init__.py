"""Evaluation: scores, confidence intervals, coverage of objects; everything that judges a trained model."""
