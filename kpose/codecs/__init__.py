"""Keypoints <-> network targets."""

from kpose.codecs.gaussian import GaussianCodec

__all__ = ["GaussianCodec"]
