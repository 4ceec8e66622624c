"""The data pipeline: batches of images, read ahead, shared out among processes."""
