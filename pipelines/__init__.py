"""Prefect says when and again; what is done, and in which order, DVC knows (dvc.yaml). No stage is named twice."""
