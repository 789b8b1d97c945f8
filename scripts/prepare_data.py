"""Write a dataset: python scripts/prepare_data.py synthetic ROOT (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare-data", *sys.argv[1:]]))
