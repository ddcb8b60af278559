"""Data sets: download, preprocessing, the prepared format on disk, and the batches that a training reads."""
