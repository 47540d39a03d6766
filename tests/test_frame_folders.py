"""Folders of frames as cameras and people leave them: in the right order and upright, or told, or refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad_lib.errors import ZsadError
from zsad_lib.files.frame_folders import list_frames, read_image
from zsad_lib.files.video import iter_frames, probe, read_video
from zsad_lib.results.film import write_film


def fill(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        Image.new("RGB", (32, 24), (number, 0, 0)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("1.jpg", "02.jpg", "003.jpg"),  # padded as they come
        ("9.png", "10.png", "11.PNG"),
        ("t0.0.png", "t0.25.png", "t0.5.png", "t1.0.png", "t1.25.png"),
        ("t0.05.png", "t0.5.png", "t1.png", "t10.125.png"),
        ("cam1.8.png", "cam1.9.png", "cam1.10.png"),  # counters: no decimal ends in a zero
        ("2024.01.9.png", "2024.01.10.png"),
        ("frame.0009.png", "frame.0010.png"),
        ("1700000000033.png", "1700000000067.png", "1700000000100.png"),
        ("x².png", "x³.png"),  # digits to str.isdigit, no numbers to int
        ("٩.png", "١٠.png"),
        ("９.png", "１０.png"),
        ("IMG_1 (2).png", "IMG_1 (10).png"),
    ],
)
def test_frames_come_in_the_order_of_their_numbers(tmp_path, names):
    fill(tmp_path, *reversed(names))
    assert [path.name for path in list_frames(tmp_path)] == list(names)


@pytest.mark.parametrize(
    "names, told",
    [
        (
            ("1.png", "2.png", "5.png", "6.png"),
            "gaps in the numbers of the frames: 1, the first between 2.png and 5.png",
        ),
        (("t0.25.png", "t0.5.png", "t1.0.png"), "numbers with a point in them are decimals here, from t0.25.png to"),
        (("1.png", "2.png", "cover.png"), "names without a number: 1, as cover.png"),
        (("a.png", "b.png"), "no frame's name holds a number, as a.png"),
        (("cam_1.png", "cam_2.png", "view_1.png"), "names of 2 kinds, the first cam_1.png, the last view_1.png"),
        (("1.png", "2.png", "film.webp"), "left out, as no frames: 1 (film.webp)"),
        (("1.png", "2.png", "film.gif"), "left out, as no frames: 1 (film.gif)"),
    ],
)
def test_what_may_not_be_meant_is_told_once(tmp_path, capsys, names, told):
    fill(tmp_path, *names)
    list_frames(tmp_path)
    list_frames(tmp_path)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}: ") and told in line


@pytest.mark.parametrize(
    "names", [("0.png", "3.jpg", "6.png"), ("1.png", "2.jpg"), ("only.png",), ("33.png", "67.png", "100.png")]
)
def test_what_is_plain_is_not_told(tmp_path, capsys, names):
    list_frames(fill(tmp_path, *names))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "names", [("1.jpg", "1.png", "2.jpg"), ("1.png", "01.png"), ("7.PNG", "7.png"), ("a.bmp", "a.tif")]
)
def test_one_frame_twice_is_refused(tmp_path, names):
    fill(tmp_path, *names)
    if len(list(tmp_path.iterdir())) < len(names):
        pytest.skip("a file system without upper case")
    with pytest.raises(ZsadError, match=r"one frame twice, .* and .*; keep one"):
        list_frames(tmp_path)


def test_system_files_and_folders_are_no_frames(tmp_path):
    fill(tmp_path, "1.png")
    for name in ("._1.png", ".hidden.png", "Thumbs.db", "1.thm"):
        (tmp_path / name).write_bytes(b"of the system")
    (tmp_path / "@eaDir" / "1.png").mkdir(parents=True)
    (tmp_path / "2.png").mkdir()
    assert [path.name for path in list_frames(tmp_path)] == ["1.png"]


@pytest.mark.parametrize("turn, corner", [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_a_telephones_picture_comes_upright(tmp_path, turn, corner):
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:16, :16] = 255  # at the top left of the sensor
    exif = Image.Exif()
    exif[0x0112] = turn
    for name in ("a.jpg", "a.png", "a.tif"):
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
        picture = read_image(tmp_path / name)
        assert picture.shape[:2] == ((64, 40) if turn > 4 else (40, 64))
        assert picture[corner][0] > 200 > picture.mean()


def test_stacks_of_pictures_are_refused_in_one_line(tmp_path):
    pages = [Image.new("L", (32, 24), shade) for shade in (0, 80, 160)]
    for name, kind in (("a.tif", "TIFF"), ("a.png", "PNG"), ("a.jpg", "GIF"), ("a.bmp", "WEBP")):
        folder = tmp_path / kind
        folder.mkdir()
        pages[0].save(folder / name, kind, save_all=True, append_images=pages[1:])
        with pytest.raises(ZsadError, match=rf"{name}: 3 pictures in one file"):
            read_video(folder)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "RGB"])
def test_every_mode_of_8_bits_is_read_in_colour(tmp_path, capsys, mode):
    path = tmp_path / ("0.tif" if mode == "CMYK" else "0.png")
    Image.new("RGB", (32, 24), (255, 255, 255)).convert(mode).save(path)
    assert read_image(path).tolist() == np.full((24, 32, 3), 255).tolist() and capsys.readouterr().err == ""


def test_transparency_is_told(tmp_path, capsys):
    Image.new("RGBA", (32, 24), (200, 100, 50, 0)).save(tmp_path / "0.png")
    assert read_image(tmp_path / "0.png")[0, 0].tolist() == [200, 100, 50]
    assert "transparency is left out" in capsys.readouterr().err


def claims(width: int, height: int) -> bytes:
    """A PNG's header of that size, with hardly any picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"  # another program would run for it


@pytest.mark.parametrize(
    "content",
    [claims(100_000, 100_000), claims(12_000, 12_000), claims(64, 48), b"", b"\xff\xd8\xff", b"GIF89a", b"II*\0", EPS],
)
def test_pictures_that_cannot_be_read_are_one_line(tmp_path, content):
    fill(tmp_path, "0.png", "2.png")
    (tmp_path / "1.png").write_bytes(content)
    for reader in (read_video, lambda folder: list(iter_frames(folder))):
        with pytest.raises(ZsadError, match=r"1\.png: .*; fetch it again") as refused:
            reader(tmp_path)
        assert "\n" not in str(refused.value)


def test_damaged_exif_is_no_part_of_the_picture(tmp_path, recwarn):
    damaged = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(30))
    Image.new("RGB", (32, 24), (200, 0, 0)).save(tmp_path / "0.jpg", exif=damaged)
    assert read_image(tmp_path / "0.jpg").shape == (24, 32, 3) and not recwarn.list


@pytest.mark.parametrize("width, height", [(16, 2000), (2000, 16), (1, 1), (8, 3000)])
def test_a_film_of_any_shape(tmp_path, scored, width, height):
    (tmp_path / "frames").mkdir()
    for number in range(2):
        Image.new("RGB", (width, height), (250, 0, 0)).save(tmp_path / "frames" / f"{number}.png")
    write_film(tmp_path / "frames", scored(np.zeros(2)), 1.0, "a threshold", tmp_path / "film.mp4", 10.0)
    film = read_video(tmp_path / "film.mp4")
    assert probe(tmp_path / "film.mp4").n_frames == 2 and max(film.shape[1:3]) < 5000
    middle = film[0, min(1000, round(height * film.shape[2] / width / 2)), film.shape[2] // 2]
    assert middle[0] > 150 > 100 > middle[1]  # the picture is in the middle
