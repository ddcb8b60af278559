"""Prefect flows that run the stale stages of DVC's graph, on a schedule and with retries; dvc.yaml defines them."""
