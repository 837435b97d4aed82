"""The MLflow store: opening, mirroring journals, views and the web interface."""
