"""MLflow: runs, the registry and what travels there. The only package that imports mlflow."""
