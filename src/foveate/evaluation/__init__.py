"""Evaluation: everything that judges a trained model by labelled images.

- `evaluate.py`: a model on images, in any number of processes
- `scores.py`: error, confusion, recall, AUC, average precision
- `intervals.py`: confidence intervals: Wilson, bootstrap over groups, paired bootstrap of comparisons
- `calibration.py`: temperature, calibration error; `decisions.py`: thresholds, costs, abstention
- `coverage.py`: how many of the known objects the patches covered
"""
