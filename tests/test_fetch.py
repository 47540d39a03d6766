"""Downloads from a local server that breaks off, and archives that mean harm."""

import hashlib
import io
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from zsad_lib.errors import ZsadError
from zsad_lib.files.downloads import fetch, sha256_file, unpack

CONTENT = bytes(range(256)) * 1200  # 300 KB
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(server):
    server.content = CONTENT
    return server


def test_fetches_once_and_checks_ever_after(server, tmp_path):
    target = tmp_path / "new" / "data.bin"
    assert fetch(server.url, target, SHA).read_bytes() == CONTENT
    assert sha256_file(target) == SHA and [f.name for f in target.parent.iterdir()] == ["data.bin"]
    fetch(server.url, target, SHA)
    assert len(server.ranges) == 1
    target.write_bytes(b"other")
    with pytest.raises(ZsadError, match="expected sha256"):
        fetch(server.url, target, SHA)
    assert fetch(server.url, target).read_bytes() == b"other"  # nothing to compare with


def test_resumes_where_it_stopped(server, tmp_path):
    target = tmp_path / "data.bin"
    server.limit = 100_000
    for _ in range(2):
        with pytest.raises(ZsadError, match="run again to continue"):
            fetch(server.url, target)
    assert not target.exists()
    server.limit = None
    assert fetch(server.url, target).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_starts_again_when_the_file_on_the_server_changed(server, tmp_path):
    target = tmp_path / "data.bin"
    server.limit = 1000
    with pytest.raises(ZsadError):
        fetch(server.url, target)
    server.content, server.limit = CONTENT[::-1], None
    assert fetch(server.url, target).read_bytes() == CONTENT[::-1]


def test_a_complete_part_is_taken(server, tmp_path):
    target = tmp_path / "data.bin"
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    (tmp_path / "data.bin.part.etag").write_text(hashlib.md5(CONTENT).hexdigest())
    assert fetch(server.url, target, SHA).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_wrong_content_never_gets_the_name(server, tmp_path):
    with pytest.raises(ZsadError, match="thrown away"):
        fetch(server.url, tmp_path / "data.bin", "0" * 64)
    assert not list(tmp_path.glob("data.bin")) and not list(tmp_path.glob("*.part"))


def test_a_server_that_continues_elsewhere_is_refused(server, tmp_path):
    server.limit = 1000
    with pytest.raises(ZsadError):
        fetch(server.url, tmp_path / "data.bin")
    server.limit, server.lie = None, 7
    with pytest.raises(ZsadError, match="another byte"):
        fetch(server.url, tmp_path / "data.bin")


def test_mirrors_take_their_turn_while_nothing_has_come(server, tmp_path, capsys):
    absent, target = server.url.replace("data.bin", "absent"), tmp_path / "data.bin"
    assert fetch([absent, server.url], target, SHA).read_bytes() == CONTENT
    assert f"404 File not found; trying {server.url}" in capsys.readouterr().err.replace("Not Found", "File not found")
    server.limit = 1000
    with pytest.raises(ZsadError, match="cut short"):  # the rest is at this mirror
        fetch([server.url, absent], tmp_path / "other.bin")
    assert (tmp_path / "other.bin.part").stat().st_size == 1000


def test_content_that_a_check_refuses_is_thrown_away(server, tmp_path):
    def check(path):
        raise ZsadError(f"{path.name} is {path.stat().st_size} bytes long")

    with pytest.raises(ZsadError, match=f"data.bin.part is {len(CONTENT)} bytes long"):
        fetch(server.url, tmp_path / "data.bin", SHA, check)
    assert not list(tmp_path.glob("*.part")) and not (tmp_path / "data.bin").exists()


def test_addresses_that_do_not_answer(server, tmp_path):
    with pytest.raises(ZsadError, match="404"):
        fetch(server.url.replace("data.bin", "absent"), tmp_path / "x")
    with pytest.raises(ZsadError, match="only http"):
        fetch("file:///etc/passwd", tmp_path / "x")
    server.shutdown()
    server.server_close()
    with pytest.raises(ZsadError, match="transfer failed"):
        fetch(server.url, tmp_path / "x")
    with pytest.raises(ZsadError, match="cannot write"):
        (tmp_path / "file").write_text("")
        fetch(server.url, tmp_path / "file" / "x")


def tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                file.addfile(info)
    return path


def make_zip(path, *members, link=False):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if link else 0o100644) << 16
            file.writestr(info, content)
    return path


@pytest.mark.parametrize("make, name", [(tar, "a.tar.gz"), (make_zip, "a.zip")])
def test_unpacks_what_is_wanted(make, name, tmp_path):
    archive = make(tmp_path / name, ("set/one.txt", b"1"), ("set/deep/two.txt", b"2"), ("other/three.txt", b"3"))
    folder = unpack(archive, tmp_path / "out", keep=lambda n: n.startswith("set/"))
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.txt")) == ["set/deep/two.txt", "set/one.txt"]
    with pytest.raises(ZsadError, match="exists already"):
        unpack(archive, folder)


@pytest.mark.parametrize(
    "make, members, reason",
    [
        (tar, [("../evil", b"x")], "outside"),
        (tar, [("/tmp/evil", b"x")], "outside"),
        (tar, [("good", b"x"), ("link", (tarfile.SYMTYPE, "/etc"))], "link"),
        (tar, [("good", b"x"), ("hard", (tarfile.LNKTYPE, "good"))], "link"),
        (tar, [("pipe", (tarfile.FIFOTYPE, ""))], "link or device"),
        (tar, [(f"f{i}", b"") for i in range(6)], "more than 5 files"),
        (tar, [("big", b"0" * 2000)], "1000 bytes"),
        (make_zip, [("../evil", b"x")], "outside"),
        (make_zip, [("a\\..\\..\\evil", b"x")], "outside"),
        (make_zip, [("C:/evil", b"x")], "outside"),
        (make_zip, [("big", b"0" * 2000)], "1000 bytes"),
        *(
            (make, [(name, b"") for name in names], "name of another one")
            for make in (tar, make_zip)
            for names in (["a", "a/b"], ["a/b", "a"], ["a", "./a"], ["a/b", "a/b/c/d"], [""], ["."])
        ),
        (tar, [("folder", (tarfile.DIRTYPE, "")), ("folder", b"x")], "name of another one"),
        (tar, [("file", b"x"), ("file", (tarfile.DIRTYPE, ""))], "name of another one"),
        (tar, [("n" * 300, b"x")], "cannot be written here"),
        (make_zip, [("n" * 300, b"x")], "cannot be written here"),
        (tar, [("device", (tarfile.CHRTYPE, ""))], "link or device"),
    ],
)
def test_hostile_archives_leave_nothing(make, members, reason, tmp_path):
    archive = make(tmp_path / "archive", *members)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ZsadError, match=reason):
        unpack(archive, tmp_path / "out", max_files=5, max_bytes=1000)
    assert sorted(tmp_path.rglob("*")) == before


def refuse(archive, reason):
    """One line that names the archive, and nothing left."""
    with pytest.raises(ZsadError, match=reason) as caught:
        unpack(archive, archive.with_name("out"))
    assert str(caught.value).startswith(str(archive)) and "\n" not in str(caught.value)
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_what_grows_beyond_all_measure_or_beyond_the_disk_is_refused(tmp_path, monkeypatch):
    archive = tmp_path / "a"
    info = tarfile.TarInfo("x")
    info.size = 1 << 42
    archive.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    refuse(archive, "1073741824 bytes unpacked")
    tar(archive, ("one", b"1"), ("two", bytes(2000)))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    refuse(archive, "2001 bytes or more, and 1000 are free")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_no_damage_goes_unseen(mode, tmp_path):
    archive = tmp_path / "a"
    noise = hashlib.sha512(b"").digest()
    content = tar(archive, *((f"f{n}", noise * 8) for n in range(4)), mode=mode).read_bytes()
    archive.write_bytes(content[: min(len(content) // 2, 3000)])
    refuse(archive, "not a readable archive")
    headers = range(1024, 4096, 1024)
    for place in headers if mode == "w" else range(20, len(content), len(content) // 9):
        changed = bytearray(content)
        changed[place] ^= 1
        archive.write_bytes(changed)
        refuse(archive, "not a readable archive")
    if mode == "w":
        for end in headers:  # cut where a member begins
            archive.write_bytes(content[:end])
            refuse(archive, "not a readable archive")


def test_what_zip_files_hold_too(tmp_path):
    archive = make_zip(tmp_path / "a.zip", ("one", b"1" * 100))
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"1" * 100, b"1" * 99 + b"2"))
    refuse(archive, "CRC")
    archive.write_bytes(content[:-9])
    refuse(archive, "not a readable archive")
    central = content.rindex(b"PK\1\2") + 8
    archive.write_bytes(content[:6] + b"\1" + content[7:central] + b"\1" + content[central + 1 :])
    refuse(archive, "encrypted")
    for text in (b"", b"PK", b"<html>not found</html>", b"Rar!" + bytes(600)):
        archive.write_bytes(text)
        refuse(archive, "not a readable archive")


def test_an_archive_in_an_archive_stays_one(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", ("deep", b"1"))
    folder = unpack(tar(tmp_path / "a.tar", ("inner.zip", inner.read_bytes()), mode="w"), tmp_path / "out")
    assert (folder / "inner.zip").read_bytes() == inner.read_bytes() and len(list(folder.iterdir())) == 1


def test_names_of_another_system(tmp_path):
    folder = unpack(make_zip(tmp_path / "a.zip", ("set\\one.txt", b"1")), tmp_path / "out")
    assert (folder / "set" / "one.txt").read_bytes() == b"1"
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    archive = tar(tmp_path / "a.tar.gz", (name, b"1"))
    assert unpack(archive, tmp_path / "latin").joinpath(name).read_bytes() == b"1"


def test_links_in_zip_archives_are_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", ("link", "/etc/passwd"), link=True)
    with pytest.raises(ZsadError, match="link"):
        unpack(archive, tmp_path / "out")


def test_damaged_archives_leave_nothing(tmp_path):
    with pytest.raises(ZsadError, match="no such archive"):
        unpack(tmp_path / "none.tar", tmp_path / "out")
    archive = tar(tmp_path / "a.tar.gz", ("one", bytes(range(256)) * 400))
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ZsadError, match="not a readable archive"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
