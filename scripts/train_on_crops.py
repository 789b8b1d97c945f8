"""Train on crop shards: KERAS_BACKEND=torch python scripts/train_on_crops.py --crops FOLDER --output FOLDER (see --help)."""

import sys
from pathlib import Path

# Where kpose is not installed, the checkout that this script lies in.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-on-crops", *sys.argv[1:]]))
