"""What the loader really feeds, as a picture: python scripts/inspect_data.py --config FILE (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["inspect", *sys.argv[1:]]))
