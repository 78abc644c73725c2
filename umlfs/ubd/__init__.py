"""The ubd device: what `ubd0=root.cow,root.img` on a kernel's command line means, and how it is opened."""

from umlfs.ubd.spec import Spec, parse

__all__ = ["Spec", "parse"]
