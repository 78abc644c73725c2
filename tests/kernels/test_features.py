"""What a kernel says of itself."""

from __future__ import annotations

from runtime.kernels.features import Features, abilities, features, parse_help
from runtime.kernels.kernel import find_kernel

HELP = """\
User Mode Linux v7.2.7
\tavailable at http://user-mode-linux.sourceforge.net/

--showconfig
    Prints the config file that this UML binary was generated from.

mem=<Amount of desired ram>
    Words here are none: ncpus=2

seccomp=<on/auto/off>
    Configure.

con[0-9]*=<channel description>
ssl-non-raw
vec[0-9]+:<option>=<value>,<option>=<value>
virtio_uml.device=<socket>:<virtio_id>[:<platform_id>]
ubd<n><flags>=<filename>[(:|,)<filename2>][(:|,)<serial>]
time-travel=<mode>
"""


def test_words() -> None:
    expected = {"mem", "seccomp", "con", "ssl-non-raw", "vec", "virtio_uml.device", "ubd", "time-travel"}
    assert parse_help(HELP) == expected


def test_the_installed_kernel() -> None:
    kernel = find_kernel()
    found = features(kernel)
    assert found == features(kernel), "kept"
    assert {"mem", "ubd", "con", "umid"} < found.words
    assert found.knows("loglevel"), "any Linux's"
    assert not found.knows("skas0")
    able = abilities(kernel)
    assert able["hostfs"] == "yes"
    assert able["virtio-fs"] in ("yes", "module")


def test_transports_of_the_old_network_devices() -> None:
    """Debian 13's kernel takes `eth0=mcast`, and makes no card."""
    found = Features("6.12", frozenset(["eth"]), {"CONFIG_UML_NET_SLIP": "y"})
    assert [found.has_transport(name) for name in ("mcast", "ucast", "vde", "slip", "tuntap")] == [False] * 3 + [
        True
    ] * 2
    assert Features("6", frozenset()).has_transport("vde"), "a kernel that does not tell how it was built"
