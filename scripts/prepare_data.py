"""Check a download and write it as TFRecord shards: python scripts/prepare_data.py coco ROOT --output FOLDER (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare-data", *sys.argv[1:]]))
