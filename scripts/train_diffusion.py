"""Trains a diffusion model: `latentdiff train diffusion` for launchers that take a script.

    accelerate launch scripts/train_diffusion.py recipe.yaml --data.train_data_dir photos --output_dir runs/diffusion

The recipe may be left out; `--help` lists the options.
"""

import sys

from latentdiff.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "diffusion", *sys.argv[1:]]))
