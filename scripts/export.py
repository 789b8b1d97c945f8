"""Write a network as a SavedModel for TensorFlow Serving: python scripts/export.py best.keras models/pose (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
