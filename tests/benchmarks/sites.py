"""CGI scripts in guests against the same script run by busybox httpd on the host, and against a guest that
runs nginx (where this host has it): requests for each second and latency, in turn; and the memory of the guests.

python -m tests.benchmarks.sites [SITES] [REQUESTS] [ROUNDS]
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.benchmarks.ratio import rounds

ROUNDS = rounds(5)
SCRIPT = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\necho hello\n"
UML = (sys.executable, "-c", "from runtime.cli import main; main()")


def latencies(port: int, hosts: list[str], path: str, requests: int) -> list[float]:
    """Milliseconds of each request, one after the other, of the sites in turn."""
    found = []
    for number in range(requests):
        start = time.perf_counter()
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        client.request("GET", path, headers={"Host": hosts[number % len(hosts)]})
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, b"hello\n")
        client.close()
        found.append((time.perf_counter() - start) * 1000)
    return found


def memory(server: int) -> float:
    """MiB of a server and all that it has started, shared memory divided among those that share it."""
    root = psutil.Process(server)
    found = 0
    for each in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += each.memory_full_info().pss
    return found / (1 << 20)


def line(name: str, found: list[float]) -> str:
    rate = 1000 / statistics.mean(found)
    return f"{name:<14} {rate:8.1f}/s   median {statistics.median(found):7.1f} ms   95 % {quantile(found):7.1f} ms"


def quantile(found: list[float]) -> float:
    return sorted(found)[int(len(found) * 0.95)]


def script(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SCRIPT)
    path.chmod(0o755)


NGINX = """\
worker_processes 1; pid /run/nginx.pid; error_log stderr; events {}
http { access_log off; client_body_temp_path /run; proxy_temp_path /run; fastcgi_temp_path /run; uwsgi_temp_path /run;
scgi_temp_path /run; server { listen 127.0.0.1:8000; location / { return 200 "hello\\n"; } } }
"""


def tables(place: Path, hosts: list[str]) -> str:
    """The sites: one with nginx last, if there is one."""
    common = 'files = "site"\nmemory = 64\n'
    text = "".join(f'[sites."{host}"]\nhandler = "/site/answer"\n{common}' for host in hosts)
    if nginx := shutil.which("nginx"):
        shutil.copy(nginx, place / "site" / "nginx")
        (place / "site" / "nginx.conf").write_text(NGINX)
        handler = '["/site/nginx", "-c", "/site/nginx.conf", "-g", "daemon off;"]'
        text += f'[sites."nginx.example"]\nhandler = {handler}\nmode = "http"\nsocket = "127.0.0.1:8000"\n'
        text += f'user = "root"\n{common}'
    return text


def main() -> None:
    given = [int(word) for word in sys.argv[1:]]
    count, requests, rounds = (*given, *(1, 50, ROUNDS)[len(given) :])
    hosts = [f"site{n}.example" for n in range(count)]
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        place.chmod(0o755)
        script(place / "site" / "answer")
        (place / "site").chmod(0o755)
        script(place / "www" / "cgi-bin" / "answer")
        (place / "sites.toml").write_text(tables(place, hosts))
        words = [*UML, "serve", "web", str(place / "sites.toml"), "--bind", "127.0.0.1:0"]
        ours = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert ours.stdout is not None
        port = int(ours.stdout.readline().rpartition(":")[2])
        peer = subprocess.Popen(["busybox", "httpd", "-f", "-p", f"127.0.0.1:{port + 1}", "-h", str(place / "www")])
        runs = {"CGI in guests": (port, hosts, "/"), "CGI on host": (port + 1, hosts, "/cgi-bin/answer")}
        if shutil.which("nginx"):
            runs["nginx in guest"] = (port, ["nginx.example"], "/")
        found: dict[str, list[float]] = {name: [] for name in runs}
        try:
            latencies(port, hosts, "/", len(hosts))  # boots them
            taken = memory(ours.pid)
            for at, whom, path in runs.values():
                latencies(at, whom, path, 1)
            for _ in range(rounds):
                for name, (at, whom, path) in runs.items():
                    found[name] += latencies(at, whom, path, requests)
        finally:
            for process in (ours, peer):
                process.terminate()
                process.wait()
    print(f"{count} sites, load {os.getloadavg()[0]:.1f}, {taken / count:.0f} MiB of the host's memory for each")
    print("\n".join(line(name, each) for name, each in found.items()))
    if "nginx in guest" not in runs:
        print("nginx in guest: left out, this host has no nginx")
    ratio = statistics.mean(found["CGI on host"]) / statistics.mean(found["CGI in guests"])
    print(f"ratio of rates, guests to host: {ratio:.2f}")


if __name__ == "__main__":
    main()
