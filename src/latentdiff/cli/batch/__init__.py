"""Many images: what is to be made, by whom, and into which files."""
