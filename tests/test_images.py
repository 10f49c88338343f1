"""What a user is promised when handing over a picture, of whatever kind."""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import struct
import sys
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, features

from csrnet_hub import images
from csrnet_hub.images import (
    DEFAULT_MAX_PIXELS,
    ImageError,
    hide_library_warnings,
    load_image,
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")


def noise(height: int = 7, width: int = 11, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, kind: int, rows: bytes, **chunks: bytes) -> bytes:
    """A PNG written by hand, for what Pillow cannot write: 16-bit RGB, tRNS, absurd sizes."""
    parts = {"IHDR": struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0), **chunks}
    parts |= {"IDAT": zlib.compress(rows), "IEND": b""}
    body = b"".join(
        struct.pack(">I", len(data))
        + name.encode()
        + data
        + struct.pack(">I", zlib.crc32(name.encode() + data))
        for name, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + body


def refused(source: Any, **options: Any) -> str:
    """The sentence with which a source is refused, after the checks that hold for all of them."""
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    message = str(caught.value)
    assert message[0].isupper()
    assert message.endswith(".")
    assert ". " in message
    assert not any(sign in message for sign in ("/", "\\", "<", "Error", "Errno", "0x"))
    return message


@pytest.fixture(autouse=True)
def _no_warning_escapes() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_a_lossless_file_gives_its_exact_pixels_from_path_string_and_bytes(
    form: str, tmp_path: Path
) -> None:
    pixels = noise()
    data = encoded(Image.fromarray(pixels), form)
    path = tmp_path / "a photo without suffix"
    path.write_bytes(data)
    sources = (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data))
    for source in (*sources, torch.tensor(pixels).movedim(2, 0)):
        result = load_image(source)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
        assert result.flags.writeable
        np.testing.assert_array_equal(result, pixels)


def test_a_tensor_is_read_like_an_array_and_never_shared() -> None:
    tensor = torch.tensor(noise())
    assert not np.shares_memory(load_image(tensor), tensor.numpy())
    shares = torch.rand(3, 40, 30, requires_grad=True)
    values = shares.detach().numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(load_image(shares), load_image(values))
    assert load_image(shares.to(torch.bfloat16)).shape == (40, 30, 3)


def test_a_file_that_is_closed_or_open_as_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with (tmp_path / "a").open() as text:
        assert 'Open it with mode "rb"' in refused(text)
    assert "Open it again" in refused(text)


def test_a_stream_that_fails_in_its_own_way_or_was_read_before_is_told() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.png", encoded(Image.fromarray(noise()), "PNG"))
    whole = packed.getvalue()
    damaged = whole.replace(b"IDAT", b"IDOT", 1)
    for archived, told in ((damaged, "This file cannot be read."), (whole, "")):
        with zipfile.ZipFile(io.BytesIO(archived)) as archive, archive.open("a.png") as member:
            if told:
                assert told in refused(member)
            else:
                assert load_image(member).shape == noise().shape
                assert "read to its end. Go back with seek(0)" in refused(member)
    assert "The file is empty" in refused(io.BytesIO())


@pytest.mark.parametrize(
    "tensor", [torch.eye(9).to_sparse(), torch.empty(9, 9, 3, device="meta")], ids=str
)
def test_a_tensor_without_readable_values_is_told(tensor: torch.Tensor) -> None:
    assert "Give a dense one." in refused(tensor)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_a_lossy_file_looks_as_pillow_shows_it(form: str) -> None:
    data = encoded(Image.fromarray(noise()), form)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(load_image(data), np.asarray(image.convert("RGB")))


def test_a_picture_larger_than_one_block_has_no_seams() -> None:
    pixels = noise(1030, 515)
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(pixels))), pixels)
    np.testing.assert_array_equal(load_image(pixels.astype(np.uint16) * 257), pixels)


def test_a_phones_multi_picture_jpeg_gives_its_main_picture() -> None:
    main, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (4, 4), "blue")
    data = encoded(main, "MPO", save_all=True, append_images=[second])
    result = load_image(data)
    assert result.shape == (8, 8, 3)
    assert result[0, 0, 0] > 240
    assert result[0, 0, 2] < 10


def test_a_pil_image_is_read_and_not_changed() -> None:
    image = Image.fromarray(noise(channels=4))
    exif = image.getexif()
    exif[0x0112] = 6
    before = (image.tobytes(), image.mode, image.size, dict(image.info), dict(exif))
    assert load_image(image).shape == (11, 7, 3)
    assert before == (image.tobytes(), image.mode, image.size, dict(image.info), dict(exif))


def test_a_ready_array_is_not_copied_but_a_read_only_one_is() -> None:
    pixels = noise()
    assert load_image(pixels) is pixels
    pixels.flags.writeable = False
    copy = load_image(pixels)
    assert copy.flags.writeable
    assert not np.shares_memory(copy, pixels)
    np.testing.assert_array_equal(copy, pixels)
    assert load_image(pixels[::2, ::-1]).flags.c_contiguous


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 1)])
@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("u1", [0, 1, 128, 255], [0, 1, 128, 255]),
        ("<u2", [0, 128, 129, 65535], [0, 0, 1, 255]),
        (">u2", [0, 257, 32896, 65535], [0, 1, 128, 255]),
        ("?", [0, 1, 1, 0], [0, 255, 255, 0]),
        ("f2", [0, 0.25, 0.5, 1], [0, 64, 128, 255]),
        ("f4", [-1e-7, 0.25, 0.5, 1.0000002], [0, 64, 128, 255]),  # as arithmetic leaves it
        ("f4", [0, 0.2, 0.6, 1], [0, 51, 153, 255]),
        ("f8", [0, 0.2, 0.6, 1], [0, 51, 153, 255]),
    ],
)
def test_a_grey_array_of_any_accepted_type_becomes_grey_rgb(
    shape: tuple[int, ...], dtype: str, values: list[float], expected: list[int]
) -> None:
    result = load_image(np.array(values, dtype).reshape(shape))
    want = np.repeat(np.array(expected, np.uint8).reshape(2, 2, 1), 3, axis=2)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, want)


# Colours ---------------------------------------------------------------------------------------


def over_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(float) / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def test_alpha_is_put_over_white_to_the_exact_pixel() -> None:
    rgba = noise(64, 64, 4)
    expected = over_white(rgba)
    for source in (encoded(Image.fromarray(rgba)), Image.fromarray(rgba), rgba):
        np.testing.assert_array_equal(load_image(source), expected)
    np.testing.assert_array_equal(load_image(rgba.astype(np.uint16) * 257), expected)


def test_grey_with_alpha_is_put_over_white() -> None:
    grey_alpha = Image.merge("LA", [Image.new("L", (3, 2), 40), Image.new("L", (3, 2), 51)])
    palette = grey_alpha.convert("RGBA").convert("PA")
    sources = [grey_alpha, encoded(grey_alpha)]
    if palette.convert("RGBA").getpixel((0, 0)) == (40, 40, 40, 51):  # wrong before Pillow 12
        sources.append(palette)
    for source in sources:
        assert (load_image(source) == 212).all()  # 40 / 5 + 255 * 4 / 5


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_alpha_is_put_over_white(mode: str) -> None:
    straight = Image.new("LA" if mode == "La" else "RGBA", (2, 2))
    straight.putalpha(0)
    assert (load_image(straight.convert(mode)) == 255).all()


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_palettes_transparent_entry_becomes_white(form: str) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    expected = [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]
    assert load_image(encoded(image, form, transparency=1)).tolist() == expected
    assert load_image(encoded(image, form))[0, 1].tolist() == [40, 50, 60]


def test_a_palette_with_partly_transparent_entries_is_put_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 0, 100, 200])
    image.putdata([0, 1])
    data = encoded(image, transparency=bytes([51, 255]))
    assert load_image(data).tolist() == [[[204, 204, 204], [0, 100, 200]]]


def test_the_transparent_colour_of_a_png_without_alpha_becomes_white() -> None:
    grey = png(2, 1, 8, 0, bytes([0, 7, 8]), tRNS=struct.pack(">H", 8))
    assert load_image(grey)[0, :, 0].tolist() == [7, 255]
    rgb = png(2, 1, 8, 2, bytes([0, 1, 2, 3, 4, 5, 6]), tRNS=struct.pack(">HHH", 1, 2, 3))
    assert load_image(rgb).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    deep = png(2, 1, 16, 0, struct.pack(">BHH", 0, 770, 771), tRNS=struct.pack(">H", 770))
    assert load_image(deep)[0, :, 0].tolist() == [255, 3]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 129, 256, 257, 32768, 65406, 65407, 65535]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    assert expected.max() == 255
    assert expected[0, 3] == 1
    image = Image.fromarray(values)
    for source in (image, encoded(image), encoded(image, "TIFF")):
        np.testing.assert_array_equal(load_image(source)[:, :, 0], expected)
    big_endian = Image.frombytes("I;16B", (9, 1), values.astype(">u2").tobytes())
    wide = Image.fromarray(values.astype(np.int32))
    for source in (big_endian, wide, encoded(wide, "TIFF")):
        np.testing.assert_array_equal(load_image(source)[:, :, 2], expected)


def test_sixteen_bit_colour_keeps_its_brightness() -> None:
    data = png(1, 1, 16, 2, struct.pack(">BHHH", 0, 65535, 128 * 257, 0))
    assert load_image(data).tolist() == [[[255, 128, 0]]]


def test_decimal_pictures_run_from_0_to_1() -> None:
    image = Image.fromarray(np.array([[0, 0.2, 1]], np.float32))
    for source in (image, encoded(image, "TIFF")):
        assert load_image(source)[0, :, 0].tolist() == [0, 51, 255]
    assert "from 0 to 200" in refused(Image.fromarray(np.array([[0, 200]], np.float32)))
    assert "32-bit" in refused(Image.fromarray(np.array([[0, 65536]], np.int32)))
    assert "32-bit" in refused(Image.fromarray(np.array([[0, -1]], np.int32)))


def grey_tiff(row: bytes, width: int, bits: int, photometric: int, kind: int = 1) -> bytes:
    """A TIFF file of one row, as cameras of science and industry write it."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1}
    tags |= {279: len(row), 339: kind}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<4sI", b"II*\0", 8 + len(row)) + row
    return start + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_twelve_bits_of_grey_are_read_up_to_white() -> None:
    row = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x00])  # 0, 0x800, 0xfff, 0
    assert load_image(grey_tiff(row, 4, 12, 1))[0, :, 0].tolist() == [0, 128, 255, 0]


def test_deep_grey_whose_zero_is_white_is_no_negative() -> None:
    row = np.array([0, 0x8000, 0xFFFF], "<u2").tobytes()
    assert load_image(grey_tiff(row, 3, 16, 0))[0, :, 0].tolist() == [255, 127, 0]
    row = np.array([0.0, 0.2, 1.0], "<f4").tobytes()
    assert load_image(grey_tiff(row, 3, 32, 0, kind=3))[0, :, 0].tolist() == [255, 204, 0]


def test_cmyk_is_not_inverted_in_tiff_nor_in_adobes_jpeg() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    jpeg = encoded(cmyk, "JPEG", quality=95)
    assert b"Adobe" in jpeg
    for source in (cmyk, encoded(cmyk, "TIFF"), jpeg):
        red, green, blue = load_image(source)[8, 8].tolist()
        assert red > 250
        assert green < 5
        assert blue < 5


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_every_other_mode_keeps_black_and_white(mode: str) -> None:
    image = Image.new("RGB", (2, 1), "white")
    image.putpixel((1, 0), (0, 0, 0))
    assert load_image(image.convert(mode)).tolist() == [[[255] * 3, [0] * 3]]


def test_a_lab_picture_keeps_its_colours() -> None:
    cms = pytest.importorskip("PIL.ImageCms")
    srgb, lab = cms.createProfile("sRGB"), cms.createProfile("LAB")
    image = cms.profileToProfile(
        Image.new("RGB", (4, 3), (200, 60, 30)), srgb, lab, outputMode="LAB"
    )
    for source in (image, encoded(image, "TIFF")):
        assert np.abs(load_image(source).astype(int) - (200, 60, 30)).max() <= 2


def test_a_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (load_image(data) == (255, 0, 0)).all()


# Orientation -----------------------------------------------------------------------------------

TURNED: dict[int, Any] = {  # EXIF orientation -> what a viewer does with the stored pixels
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
def test_a_photo_is_turned_upright_in_every_format_that_says_how(orientation: int) -> None:
    pixels = noise(600, 9)
    expected = TURNED[orientation](pixels)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form, options in (
        ("PNG", {"exif": exif}),
        ("TIFF", {"tiffinfo": {274: orientation}}),
        ("TIFF", {"tiffinfo": {274: orientation}, "compression": "tiff_lzw"}),
        ("WEBP", {"exif": exif, "lossless": True}),
    ):
        result = load_image(encoded(image, form, **options))
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, expected, err_msg=form)
    jpeg = load_image(encoded(image, "JPEG", exif=exif))
    plain = load_image(encoded(image, "JPEG"))
    np.testing.assert_array_equal(jpeg, TURNED[orientation](plain))


CUT_OFF_EXIF = b"Exif\0\0II*\0\xff\xff\xff\xff"


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0rubbish", CUT_OFF_EXIF])
def test_broken_metadata_does_not_cost_the_picture(exif: bytes) -> None:
    hide_library_warnings()
    assert load_image(encoded(Image.fromarray(noise()), "JPEG", exif=exif)).shape == (7, 11, 3)


# The pixel limit -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_the_pixel_limit_holds_before_decoding(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(noise(10, 20)), form)
    assert load_image(data, max_pixels=200).shape == (10, 20, 3)
    assert load_image(data, max_pixels=None).shape == (10, 20, 3)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert "20 x 10 = 200 pixels, more than the 199 allowed" in refused(data, max_pixels=199)


def test_a_strip_longer_than_any_jpeg_is_a_sentence() -> None:
    for size in ((1, 65_536), (65_536, 1)):
        data = encoded(Image.new("L", size))
        said = "{:,} x {:,} pixels; its longer side may have at most 65,535".format(*size)
        assert said in refused(data)
    assert load_image(data, max_pixels=None).shape == (1, 65_536, 3)
    assert load_image(encoded(Image.new("L", (1, 65_535)))).shape == (65_535, 1, 3)


def test_the_pixel_limit_holds_for_arrays_and_pil_images() -> None:
    pixels = noise(10, 20)
    for source in (pixels, pixels[:, :, 0], pixels / 255, Image.fromarray(pixels)):
        assert load_image(source, max_pixels=200).shape == (10, 20, 3)
        assert "199 allowed" in refused(source, max_pixels=199)


@pytest.mark.parametrize("size", [(60_000, 60_000), (DEFAULT_MAX_PIXELS + 1, 1)])
def test_a_decompression_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    assert "200,000,000 allowed" in refused(png(*size, 8, 2, b"\0"))
    assert "200,000,000 allowed" in refused(
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, *size, 1, 24, 0, 0, 0, 0, 0, 0)
    )


@pytest.mark.parametrize("form", FORMATS)
def test_pillows_own_limit_neither_warns_nor_stops_what_ours_allows(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = encoded(Image.fromarray(noise(10, 20)), form)
    for limit in (200, None):
        assert load_image(data, max_pixels=limit).shape == (10, 20, 3)
    assert "199 allowed" in refused(data, max_pixels=199)
    assert load_image(Image.fromarray(noise(10, 20))).shape == (10, 20, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def run_in_threads(work: Callable[[], None], number: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_pillows_warnings_are_hidden_by_a_program_that_asks_for_it_alone() -> None:
    data = encoded(Image.fromarray(noise()), "JPEG", exif=CUT_OFF_EXIF)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        load_image(data)
        assert seen
        seen.clear()
        hide_library_warnings()
        load_image(data)
        warnings.warn("another's", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["another's"]


def test_many_threads_leave_pillow_and_the_warning_filters_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = encoded(Image.fromarray(noise(10, 20)), "TIFF")
    filters, failures = list(warnings.filters), []

    def work() -> None:
        for _ in range(20):
            try:
                load_image(data)
            except Exception as error:
                failures.append(error)

    run_in_threads(work, 8)
    assert not failures
    assert Image.MAX_IMAGE_PIXELS == 10
    assert list(warnings.filters) == filters


def test_pictures_are_decoded_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=10)
    data, decode, failures = encoded(Image.fromarray(noise(10, 20)), "PNG"), images._from_pil, []

    def meet(*options: Any) -> Any:
        both.wait()  # neither goes on until the other is here
        return decode(*options)

    def work() -> None:
        try:
            load_image(data)
        except Exception as error:
            failures.append(error)

    monkeypatch.setattr(images, "_from_pil", meet)
    run_in_threads(work, 2)
    assert not failures


# Refusals --------------------------------------------------------------------------------------


def test_no_picture_is_answered_with_what_to_do() -> None:
    for nothing in (None, ""):
        assert "No picture was given" in refused(nothing)
    assert "empty" in refused(b"")


@pytest.mark.parametrize("source", [3, 2.5, ["a.jpg"], {}, object(), np.float32(1)])
def test_the_wrong_type_is_named(source: Any) -> None:
    assert f"of type {type(source).__name__}." in refused(source)


def test_a_missing_file_a_folder_and_a_strange_name_each_get_their_sentence(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("x")
    for missing in ("no.jpg", "plain.txt/no.jpg", "nul\0.jpg"):
        assert "no such file" in refused(str(tmp_path / missing))
    assert "no such file" in refused("https://example.org/crowd.jpg")
    assert "folder" in refused(tmp_path)
    refused(str(tmp_path / ("x" * 5000)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not an ordinary file" in refused(tmp_path / "pipe")


@pytest.mark.parametrize(("code", "words"), [(errno.EACCES, "permission"), (errno.EIO, "cannot")])
def test_a_file_that_cannot_be_opened_says_so(
    code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, "as the system says it", str(path))

    monkeypatch.setattr(Path, "open", fail)
    assert words in refused(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"Dear all,\nplease count this.\n", "text file"),
        ("Grüße aus Köln".encode(), "text file"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "video"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        (bytes(range(256)), "not a picture"),
        (b"\0", "not a picture"),
    ],
)
def test_what_is_not_a_readable_picture_is_called_by_its_name(
    data: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for decoder in ("pillow_heif", "PIL.AvifImagePlugin"):  # as where neither is installed
        monkeypatch.setitem(sys.modules, decoder, None)
    assert words in refused(data)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_phones_heic_picture_is_read_upright(orientation: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = np.zeros((48, 80, 3), np.uint8)
    pixels[:24, :40] = (250, 10, 10)  # the stored picture's upper left
    stored = pillow_heif.from_pillow(Image.fromarray(pixels))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, quality=95, exif=exif.tobytes())
    data = buffer.getvalue()
    found = load_image(data).astype(int)
    assert found.shape == ((48, 80, 3) if orientation == 1 else (80, 48, 3))
    upright = pixels if orientation == 1 else np.rot90(pixels, -1)
    assert np.abs(found - upright).mean() < 6  # lossy
    assert "damaged" in refused(data[: len(data) // 2])
    assert "damaged" in refused(data[:60])
    assert "more than the 1,000 allowed" in refused(data, max_pixels=1000)


def test_an_avif_picture_is_read_where_pillow_can() -> None:
    if "avif" not in features.modules or not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    smooth = np.linspace(0, 255, 64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)
    data = encoded(Image.fromarray(smooth), "AVIF", quality=95)
    assert np.abs(load_image(data).astype(int) - smooth).mean() < 6
    assert "damaged" in refused(data[: len(data) // 2])
    assert "more than the 1,000 allowed" in refused(data, max_pixels=1000)


def test_other_formats_that_pillow_knows_are_refused() -> None:
    for form in ("PPM", "ICO", "TGA", "PCX"):
        assert "not a picture that can be read" in refused(
            encoded(Image.fromarray(noise(64, 64)), form)
        )


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_a_camera_raw_file_is_not_counted_by_its_thumbnail(tags: dict[int, Any]) -> None:
    assert "camera raw" in refused(encoded(Image.fromarray(noise()), "TIFF", tiffinfo=tags))


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_picture_is_refused(form: str) -> None:
    data = encoded(Image.fromarray(noise(64, 64)), form)
    assert "damaged, incomplete" in refused(data[: len(data) // 2])
    assert "damaged, incomplete" in refused(data[:20])


def test_a_closed_pil_image_is_refused() -> None:
    image = Image.open(io.BytesIO(encoded(Image.fromarray(noise()))))
    image.close()
    assert "damaged" in refused(image)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0, 3), (0, 0, 4)])
def test_a_picture_without_pixels_is_refused(shape: tuple[int, ...]) -> None:
    assert "no pixels" in refused(np.zeros(shape, np.uint8))
    assert "no pixels" in refused(Image.new("RGB", (shape[1], shape[0])))


@pytest.mark.parametrize("shape", [(), (5,), (5, 5, 0), (5, 5, 2), (3, 5, 5), (1, 5, 5, 3)])
def test_an_array_of_the_wrong_shape_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    assert str(shape) in refused(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", ["i1", "i8", "u4", "c8", "U1", "O"])
def test_an_array_of_the_wrong_type_is_refused(dtype: str) -> None:
    array = np.empty((4, 4), dtype)
    assert f"holds {array.dtype.name} values" in refused(array)


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (1.5, "1.5"), (-0.1, "-0.1")],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_decimal_arrays_outside_0_to_1_are_refused(value: float, words: str, channels: int) -> None:
    array = np.full((4, 4, channels), 0.5)
    array[3, 3, -1] = value
    assert words in refused(array)


@pytest.mark.parametrize(
    "error", [MemoryError(), OverflowError("x"), RecursionError(), KeyError(1)]
)
def test_whatever_the_decoder_raises_becomes_a_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    refused(encoded(Image.fromarray(noise())))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_the_file_is_closed_whether_it_loads_or_not(
    form: str, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    real_open = io.open

    def noting_open(*args: Any, **kwargs: Any) -> Any:
        opened.append(real_open(*args, **kwargs))
        return opened[-1]

    data = encoded(Image.fromarray(noise(64, 64)), form)
    path = tmp_path / "photo"
    path.write_bytes(data if whole else data[: len(data) // 2])
    monkeypatch.setattr(io, "open", noting_open)
    monkeypatch.setattr(builtins, "open", noting_open)
    monkeypatch.setattr(Path, "open", noting_open)  # Python 3.10's has another io.open
    if whole:
        load_image(path)
    else:
        assert str(tmp_path) not in refused(path)
        assert "photo" not in refused(path)
    assert opened
    assert all(stream.closed for stream in opened)


# Damage ----------------------------------------------------------------------------------------


def _damaged(data: bytes, chance: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(chance.choice((1, 2, 8))):
        # Headers hold most of what a parser can stumble over.
        place = chance.randrange(len(broken) if chance.random() < 0.5 else min(len(broken), 200))
        broken[place] = chance.choice((0, 255, 127, 128, chance.randrange(256)))
    return bytes(broken[: chance.randrange(len(broken))] if chance.random() < 0.3 else broken)


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("GIF", "P", {"transparency": 3}),
        ("TIFF", "RGB", {}),
        ("TIFF", "RGBA", {"compression": "tiff_lzw"}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "YCbCr", {"compression": "jpeg"}),
        ("BMP", "P", {}),
        ("BMP", "RGB", {}),
    ],
)
def test_a_damaged_file_loads_or_is_refused_and_nothing_else(
    form: str, mode: str, options: dict[str, Any]
) -> None:
    chance = random.Random(f"{form} {mode}")
    image = Image.fromarray(noise(24, 20)) if mode != "I;16" else Image.new(mode, (20, 24), 999)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a maker"
    extra = {"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}
    data = encoded(image if mode == "I;16" else image.convert(mode), form, **options, **extra)
    loaded = 0
    for _ in range(150):
        broken = _damaged(data, chance)
        try:
            result = load_image(broken, max_pixels=1_000_000)
        except ImageError:
            continue
        loaded += 1
        assert result.dtype == np.uint8
        assert result.ndim == 3
        assert result.shape[2] == 3
    assert loaded < 150


@pytest.mark.skipif(sys.platform == "win32", reason="counts open files in /proc or /dev")
def test_damaged_tiff_files_leave_no_file_open(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else Path("/dev/fd")
    chance = random.Random(0)
    data = encoded(Image.fromarray(noise(24, 20)), "TIFF", compression="tiff_lzw")
    path = tmp_path / "photo.tif"
    before = len(list(folder.iterdir()))
    for _ in range(50):
        path.write_bytes(_damaged(data, chance))
        try:
            load_image(path, max_pixels=1_000_000)
        except ImageError:
            continue
    assert len(list(folder.iterdir())) <= before
