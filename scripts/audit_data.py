"""Find faulty annotations: python scripts/audit_data.py --config FILE (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["audit", *sys.argv[1:]]))
