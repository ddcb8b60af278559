"""MLflow tracking, registry and serving. The only package that imports mlflow.

MLflow reads its switches from the environment when it is imported, so they are set here, before any module does that.
"""

import logging
import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # seconds; MLflow's own 120 and 7 retries
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # wait many minutes for a server that is down

# Without GitPython MLflow warns three times at each start; tracking.runs adds the commit without it
logging.getLogger("mlflow.utils.git_utils").setLevel(logging.ERROR)
