"""Published data sets, read as they were published: one reader a file, each with its source and its rule for labels.

A reader refuses files that are missing, damaged or not those published, as results would not compare. Nothing is
copied: images are opened where they lie, colon_cancer.py's and deep_pcb.py's in their zip files. Only the
Swedish scenes are fetched (download.py).
"""
