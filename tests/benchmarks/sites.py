"""CGI scripts in guests against the same script run by busybox httpd on the host: requests for each second, in turn.

python -m tests.benchmarks.sites [SITES] [REQUESTS]
"""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.ratio import rounds

ROUNDS = rounds(5)
SCRIPT = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\necho hello\n"
UML = (sys.executable, "-c", "from runtime.cli import main; main()")


def rate(port: int, hosts: list[str], path: str, requests: int) -> float:
    """Requests for each second, one after the other, of the sites in turn."""
    start = time.perf_counter()
    for number in range(requests):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        client.request("GET", path, headers={"Host": hosts[number % len(hosts)]})
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, b"hello\n")
        client.close()
    return requests / (time.perf_counter() - start)


def script(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SCRIPT)
    path.chmod(0o755)


def main() -> None:
    count, requests = (int(sys.argv[n]) if len(sys.argv) > n else default for n, default in ((1, 1), (2, 50)))
    hosts = [f"site{n}.example" for n in range(count)]
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        place.chmod(0o755)
        script(place / "site" / "answer")
        (place / "site").chmod(0o755)
        script(place / "www" / "cgi-bin" / "answer")
        site = 'files = "site"\nhandler = "/site/answer"\nmemory = 64\n'
        (place / "sites.toml").write_text("".join(f'[sites."{host}"]\n{site}' for host in hosts))
        words = [*UML, "serve", "web", str(place / "sites.toml"), "--bind", "127.0.0.1:0"]
        ours = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert ours.stdout is not None
        port = int(ours.stdout.readline().rpartition(":")[2])
        peer = subprocess.Popen(["busybox", "httpd", "-f", "-p", f"127.0.0.1:{port + 1}", "-h", str(place / "www")])
        try:
            rate(port, hosts, "/", len(hosts))  # boots them
            found: dict[str, list[float]] = {"guest": [], "host": []}
            for _ in range(ROUNDS):
                found["guest"].append(rate(port, hosts, "/", requests))
                found["host"].append(rate(port + 1, hosts, "/cgi-bin/answer", requests))
        finally:
            for process in (ours, peer):
                process.terminate()
                process.wait()
    guest, host = (statistics.median(found[name]) for name in ("guest", "host"))
    print(f"{count} sites, load {os.getloadavg()[0]:.1f}: requests/s {guest:.1f} in guests, {host:.1f} on the host,")
    print(f"ratio {guest / host:.2f}")


if __name__ == "__main__":
    main()
