"""Lets tools that still ask for setup.py build kpose; everything is said in pyproject.toml."""

from setuptools import setup

setup()
