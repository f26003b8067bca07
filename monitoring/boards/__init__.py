"""The boards for Grafana."""
