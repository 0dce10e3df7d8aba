"""`python -m latentdiff`, the same as the command `latentdiff`."""

import sys

from latentdiff.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
