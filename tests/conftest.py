"""Its place makes the helper modules of this folder importable by all tests."""
