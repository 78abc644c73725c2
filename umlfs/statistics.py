"""What a device that is served has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Statistics:
    """Counters of one device, from its making on. Whoever serves it adds to them, in one thread."""

    requests: int = 0
    """How many were answered."""
    read_bytes: int = 0
    """Contents of files, or of the disk, that were read."""
    written_bytes: int = 0
    seconds: float = 0.0
    """How long all requests took, each from when it was taken until the other side was told of the answer."""
    longest: float = 0.0
    """How many seconds the one that took longest did."""

    def took(self, seconds: float) -> None:
        """One more request was answered."""
        self.requests += 1
        self.seconds += seconds
        if seconds > self.longest:
            self.longest = seconds

    def took_some(self, count: int, seconds: float, longest: float) -> None:
        """So many more were answered, in so many seconds together, the longest in `longest`."""
        self.requests += count
        self.seconds += seconds
        if longest > self.longest:
            self.longest = longest

    def clear(self) -> None:
        """Begin anew."""
        self.requests = self.read_bytes = self.written_bytes = 0
        self.seconds = self.longest = 0.0

    @property
    def mean(self) -> float:
        """Seconds that a request took; 0 if there was none."""
        return self.seconds / self.requests if self.requests else 0.0
