"""Components of pipelines: each is a folder with a config.json and weights. Import them from their modules."""
