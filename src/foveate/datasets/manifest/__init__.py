"""Manifests: your own images, listed in a CSV file or sorted into class folders.

A manifest is read into rows, with all its faults (rows.py, folders.py); rows become a data set, or an error that
names the first faults (dataset.py). check.py goes further and looks into every image. write.py makes manifests: split
ones, and those of data sets written to disk. objects.csv beside a manifest says what lies where in its images
(objects.py).
"""
