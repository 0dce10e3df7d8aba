"""`python -m latentdiff`, the same as the command `latentdiff`."""

from latentdiff.cli.main import script

if __name__ == "__main__":
    script()
