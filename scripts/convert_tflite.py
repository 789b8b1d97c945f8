"""Write a network as a TFLite file: python scripts/convert_tflite.py best.keras --precision fp16 --output pose.tflite (see --help)."""

import sys

from kpose.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
