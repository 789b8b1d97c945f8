"""Turn a published PyTorch checkpoint into a .keras file: python scripts/import_weights.py CHECKPOINT --model hrnet_w32 (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["import-weights", *sys.argv[1:]]))
