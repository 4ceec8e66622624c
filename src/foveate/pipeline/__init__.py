"""The data pipeline, between data sets and whoever trains or evaluates.

- `loader.py`: batches: order of an epoch, sharding, views made by workers, images that stay open
- `distributed.py`: what several processes must do together
"""
