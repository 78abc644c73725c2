"""The mirrors and keys that a host's apt has."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.kernels.apt_sources import AptSource, debian, sources

STANZAS = """\
# a remark
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /etc/keys.gpg

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: sid

Types: deb
URIs: http://inline.example/debian
Suites: sid
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
"""
KEYS = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----"


def etc(place: Path, **files: str) -> Path:
    (place / "sources.list.d").mkdir()
    for name, content in files.items():
        (place / name.replace("__", ".list.d/").replace("_", ".")).write_text(content)
    return place


def test_both_forms(tmp_path: Path) -> None:
    line = "deb [arch=amd64 signed-by=/k.gpg] https://example.org/debian trixie main # x\n#deb http://x/debian y z\n"
    place = etc(tmp_path, sources_list=line, sources__a_sources=STANZAS, sources__b_list="deb http://other/debian s m")
    assert sources(place) == [
        AptSource("https://example.org/debian", ("trixie",), "/k.gpg"),
        AptSource("http://mirror.example/debian", ("bookworm", "bookworm-updates"), "/etc/keys.gpg"),
        AptSource("http://inline.example/debian", ("sid",), KEYS),
        AptSource("http://other/debian", ("s",)),
    ]


@pytest.mark.parametrize(
    ("line", "uri"),
    [
        ("deb http://a.example/debian/ x main", "http://a.example/debian"),
        ("deb http://a.example/debian-security x main", ""),
        ("deb http://mirror.example/ubuntu noble main", ""),
        ("deb cdrom:[Debian]/debian x main", ""),
        ("", ""),
    ],
)
def test_which_is_debian_s(tmp_path: Path, line: str, uri: str) -> None:
    assert debian(etc(tmp_path, sources_list=line)).uri == uri


def test_a_host_without_apt(tmp_path: Path) -> None:
    assert sources(tmp_path) == []
