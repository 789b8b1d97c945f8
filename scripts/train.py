"""Train a network: python scripts/train.py --config configs/coco/lite_mobilenet_v3_256x192.yaml (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
