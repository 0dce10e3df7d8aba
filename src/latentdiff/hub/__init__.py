"""Folders of models on disk, in the package and on the hub: loading, saving, uploads and model cards."""
