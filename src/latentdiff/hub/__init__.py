"""Models as folders: on disk, in the package, and on the hub."""
