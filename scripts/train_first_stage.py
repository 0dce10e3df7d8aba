"""Trains a first stage: `latentdiff train first-stage` for launchers that take a script.

    accelerate launch scripts/train_first_stage.py recipe.yaml --data.train_data_dir photos --output_dir first-stage

The recipe may be left out; `--help` lists the options.
"""

import sys

from latentdiff.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "first-stage", *sys.argv[1:]]))
