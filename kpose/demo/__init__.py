"""A local web page that shows what a network finds: `kpose demo`. It needs the extra `demo`: `pip install 'kpose[demo]'`."""

from kpose.demo.server import serve

__all__ = ["serve"]
