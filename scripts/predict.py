"""Find joints in photos: python scripts/predict.py PHOTO_OR_FOLDER [--weights FILE_OR_NAME] [--boxes FILE | --whole-image] (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
