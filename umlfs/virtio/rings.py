"""The class of virtqueues that serves: the compiled one where there is one."""

from __future__ import annotations

from typing import Final

from umlfs.compiled import extension
from umlfs.virtio.polling import Polling as PythonPolling
from umlfs.virtio.virtqueue import Virtqueue

VERSION: Final = 1
"""Of what is expected of `_virtqueue.pyx`, which has the same number."""

_compiled = extension("umlfs.virtio._virtqueue", VERSION)
Ring: type[Virtqueue] = Virtqueue if _compiled is None else _compiled.Virtqueue
"""Has what `Virtqueue` has, in C or not; what is compiled has `serve` besides."""
Polling: type[PythonPolling] = PythonPolling if _compiled is None else _compiled.Polling
