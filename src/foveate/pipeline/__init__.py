"""The data pipeline, between data sets and whoever trains or evaluates.

- `loader.py`: batches: order of an epoch, sharding, views made ahead by threads
- `inference.py`: outputs for many images: on a CPU an image a core, on a GPU batches, of which the next is under way
- `source_cache.py`: images that stay open from epoch to epoch
- `distributed.py`: what several processes must do together
"""
