"""Find joints in very many photos: python scripts/predict_batch.py FOLDER_OR_PATTERN --output FOLDER [--resume] (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict-batch", *sys.argv[1:]]))
