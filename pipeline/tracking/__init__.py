"""MLflow, as a mirror of the workspace. Only this folder imports mlflow."""
