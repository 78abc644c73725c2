"""`fs:` on real servers: S3, HTTP and SFTP."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import boto3
import pytest
import trio

from tests.externfs.driver import driving, refused
from tests.externfs.servers import sftp_server, web_server
from tests.mounts.server import mounted
from umlfs import sources
from umlfs.errors import UmlError, UsageError

pytestmark = pytest.mark.usefixtures("fsspec_loop")


class Bucket:
    """A new bucket on the S3 server."""

    def __init__(self, url: str) -> None:
        self.name = f"b{uuid.uuid4().hex[:12]}"
        keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
        self.client = boto3.client("s3", endpoint_url=url, **keys)
        self.client.create_bucket(Bucket=self.name)
        self.word = f"fs:s3://{self.name},endpoint={url},key=k,secret=s"

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def keys(self) -> list[str]:
        return [one["Key"] for one in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])]


@pytest.fixture
def bucket(s3: str) -> Bucket:
    return Bucket(s3)


async def test_reading_s3(bucket: Bucket) -> None:
    data = random.Random(1).randbytes(20 << 20)
    bucket.put("big", data)
    bucket.put("dir/below/file*[x]", b"odd")
    bucket.put("dir/é", b"")
    async with driving(bucket.word) as tree:
        assert tree.fs.traits.read_only
        assert await tree.ls() == ["big", "dir"]
        assert await tree.ls("dir") == ["below", "é"]
        assert await tree.cat("dir/below/file*[x]") == b"odd"
        assert (await tree.stat("big")).size == len(data)
        assert await tree.cat("big") == data
        ino = await tree.walk("big")
        assert await tree.subject.read(ino, 100, 19 << 20) == data[19 << 20 :][:100]
        assert await tree.subject.read(ino, 100, len(data) - 5) == data[-5:]
        for path in ("nothing", "dir/nothing", "dir/below/file*", "big/x"):
            with refused(errno.ENOENT, errno.ENOTDIR):
                await tree.cat(path)


async def test_writing_s3(bucket: Bucket) -> None:
    data = random.Random(2).randbytes(17 << 20)
    async with driving(f"{bucket.word},rw") as tree:
        await tree.put("one", b"1")
        await tree.put("big", data)
        await tree.mkdir("dir")
        assert await tree.ls() == ["big", "dir", "one"]
        await tree.put("dir/two", b"2")
        await tree.mv("one", "dir/three")
        await tree.subject.write(await tree.walk("dir/two"), b"+", 1)
        with refused(errno.ENOTEMPTY):
            await tree.rmdir("dir")
        with refused(errno.EXDEV):
            await tree.mv("dir", "other")
    assert bucket.get("big") == data
    assert bucket.get("dir/two") == b"2+"
    assert sorted(bucket.keys()) == ["big", "dir/three", "dir/two"]
    async with driving(f"{bucket.word},rw") as tree:
        await tree.rm_r("dir")
        assert await tree.ls() == ["big"]


async def test_many_keys(bucket: Bucket, s3: str, long: bool) -> None:
    count = 10_000 if long else 1_200
    for number in range(count):
        bucket.put(f"many/{number:05}", b"")
    async with driving(bucket.word) as tree:
        assert len(await tree.ls("many")) == count


@pytest.mark.logs_warnings
async def test_http(tmp_path: Path) -> None:
    (tmp_path / "site/dir").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    data = random.Random(3).randbytes(8 << 20)
    (tmp_path / "site/big").write_bytes(data)
    (tmp_path / "site/dir/a b?#%41").write_bytes(b"odd")
    with web_server(tmp_path) as (server, url):
        async with driving(f"fs:{url}/site", block="1") as tree:
            assert await tree.ls() == ["big", "dir"]
            assert stat.S_ISDIR((await tree.stat("dir")).mode)
            assert await tree.ls("dir") == ["a b?#%41"]
            assert await tree.cat("dir/a b?#%41") == b"odd"
            for name in ("%2e%2e%2fsecret", "..%2fsecret", "dir/../../secret", "big?x", "nothing"):
                with refused(errno.ENOENT, errno.ENOTDIR):
                    await tree.cat(name)
            ino = await tree.walk("big")
            async with tree.subject.opened(ino, 0) as handle:
                half = bytearray(1 << 20)
                assert await tree.fs.read_into(ino, handle, 0, [memoryview(half)]) == 1 << 20
                server.refusing = True
                with refused(errno.EIO):
                    for offset in (5 << 20, 3 << 20, 6 << 20):  # blocks that nobody has asked for, nor for those before
                        await tree.fs.read_into(ino, handle, offset + (1 << 19), [memoryview(half)])
                server.refusing = False
                for offset in (5 << 20, 1 << 20):
                    assert await tree.fs.read_into(ino, handle, offset, [memoryview(half)]) == 1 << 20
                    assert half == data[offset : offset + (1 << 20)]


async def test_sftp(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"contents")
    (root / "out").symlink_to("../secret")
    (tmp_path / "secret").write_text("secret")
    with sftp_server(tmp_path) as url:
        async with driving(f"fs:{url}/root,user=me,password=secret,rw") as tree:
            assert await tree.ls() == ["file", "out"]
            assert await tree.cat("file") == b"contents"
            assert await tree.readlink("out") == "../secret"
            with refused(errno.EINVAL, errno.ELOOP):
                await tree.cat("out")
            await tree.mkdir("dir")
            await tree.put("dir/new", b"new")
            await tree.mv("dir/new", "file")
            await tree.rmdir("dir")
    assert (root / "file").read_bytes() == b"new"
    assert sorted(path.name for path in root.iterdir()) == ["file", "out"]


async def test_archive_on_a_web_server(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("dir/file", "from the archive")
    with web_server(tmp_path) as (_, url):
        async with driving(f"fs:zip://::{url}/a.zip") as tree:
            assert await tree.cat("dir/file") == b"from the archive"


def test_a_mount_of_a_bucket(bucket: Bucket, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "dir/file").write_bytes(random.Random(4).randbytes(9 << 20))
    (source / "empty").touch()
    there.mkdir()
    with mounted(f"{bucket.word},rw", there):
        subprocess.run(["cp", "-r", source, there / "copy"], check=True)
        subprocess.run(["cp", "-r", there / "copy", back], check=True)
        subprocess.run(["mv", there / "copy", there / "moved"], check=True)
        subprocess.run(["diff", "-r", source, there / "moved"], check=True)
    subprocess.run(["diff", "-r", source, back], check=True)


def test_wrong_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def message(word: str) -> str:
        with pytest.raises((UmlError, UsageError)) as caught:
            trio.run(sources.parse(word).open)
        return str(caught.value)

    assert message("fs:nothing") == "fs:nothing: no URL; write fs:s3://BUCKET/PREFIX, fs:https://HOST/DIR, …"
    assert "write hostfs:DIR" in message("fs:file:///etc")
    assert "reached" in message("fs:nonsense://x")
    assert "no number above 0" in message("fs:http://127.0.0.1:1/,block=x")
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    assert message("fs:gs://x").endswith("the Python package 'gcsfs' is missing; pip install 'umlfs[gs]'")


@pytest.mark.guest
def test_a_root_from_a_web_server(tmp_path: Path) -> None:
    """A listing, which tells no sizes, takes no pages from the program that runs."""
    root = tmp_path / "root"
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("sh", "ls", "wc", "tar"):
        shutil.copy("/bin/busybox", root / "bin" / name)
    size = os.path.getsize("/bin/busybox")
    (root / "etc/word").write_text("here\n")
    script = "ls /bin; ls -l /bin/sh; tar cf - -C /etc word | tar xOf -; wc -c </bin/ls"
    with web_server(root) as (_, url):
        words = [sys.executable, "-c", "from runtime.cli import main; main()", "run", "--root", f"fs:{url}/"]
        done = subprocess.run([*words, "--", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *names, listed, word, counted = done.stdout.splitlines()
    assert names == ["ls", "sh", "tar", "wc"]
    assert (listed.split()[4], word, counted) == (str(size), "here", str(size))
