"""MLflow: a mirror of the workspace. The only folder that imports mlflow."""
