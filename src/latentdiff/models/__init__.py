"""Components that a pipeline is made of: each is a folder with a config.json and weights. Import them from their modules."""
