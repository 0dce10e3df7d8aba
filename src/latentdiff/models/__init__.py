"""The components of pipelines. Each is saved as a folder with a configuration and, if it has any, weights."""
