"""Small files that would take minutes or gigabytes are refused; odd but honest ones are read."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from csrnet_hub import imagefiles
from csrnet_hub.images import ImageError, load_image

PIECES = "too many pieces"


def encoded(
    form: str, mode: str = "RGB", size: tuple[int, int] = (20, 24), **options: Any
) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, form, **options)
    return buffer.getvalue()


def refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(data)
    message = str(caught.value)
    assert words in message
    assert message[0].isupper()
    assert message.endswith(".")
    assert ". " in message


# JPEG ------------------------------------------------------------------------------------------


def segment(marker: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def progressive(scans: int, width: int, height: int) -> bytes:
    """A grey JPEG written by hand, each of whose scans says that all coefficients are zero."""
    blocks = -(-width // 8) * -(-height // 8)
    runs = ("0" + "1" * 14) * -(-blocks // 32767)
    runs += "1" * (-len(runs) % 8)
    coded = int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    return (
        b"\xff\xd8"
        + segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
        + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")  # one code: a run of empty blocks
        + (segment(0xDA, b"\1\1\0\1\77\0") + coded) * scans
        + b"\xff\xd9"
    )


def test_a_jpeg_of_hundreds_of_scans_is_refused_where_they_take_long() -> None:
    refused(progressive(41, 10_000, 10_000), "in 41 steps")
    assert load_image(progressive(41, 64, 64)).shape == (64, 64, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_scans_are_counted_in_the_main_picture_alone(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagefiles, "LEAST_SCANS", 10)  # as many as Pillow writes
    monkeypatch.setattr(imagefiles, "SCANNED_PIXELS", 0)
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=98, **options)
    photo, thumbnail = buffer.getvalue(), progressive(30, 8, 8)
    # as cameras and phones write: one in the metadata, others and a video after the end
    whole = photo[:2] + segment(0xE1, b"Exif\0\0" + thumbnail) + photo[2:] + thumbnail
    expected = load_image(photo)
    np.testing.assert_array_equal(load_image(whole + segment(0xDA) * 100), expected)
    refused(photo[:-2] + segment(0xDA) * 11 + b"\xff\xd9", "steps")


def test_a_marker_that_two_reads_cut_in_half_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    data = progressive(3, 64, 64)
    expected = [marker for marker, _ in imagefiles._segments(io.BytesIO(data))]
    assert expected == [0xDB, 0xC2, 0xC4, 0xDA, 0xDA, 0xDA]
    monkeypatch.setattr(imagefiles, "_CHUNK", 2)
    padded = data.replace(b"\xff\xda", b"\xff\xff\xda")
    assert [marker for marker, _ in imagefiles._segments(io.BytesIO(padded))] == expected


@pytest.mark.parametrize("marker", [0xFE, 0xE5])
def test_a_jpeg_of_countless_segments_is_refused(marker: int) -> None:
    photo = encoded("JPEG")
    assert load_image(photo[:2] + segment(marker) * 2000 + photo[2:]).shape == (24, 20, 3)
    refused(photo[:2] + segment(marker) * 100_000 + photo[2:], PIECES)


def test_a_jpeg_with_what_pillow_would_step_through_byte_by_byte_is_refused() -> None:
    photo = encoded("JPEG")
    assert load_image(photo[:2] + b"\xff" * 99 + photo[2:]).shape == (24, 20, 3)
    refused(photo[:2] + segment(0xFE) + bytes(20_000) + photo[2:], "damaged")
    for marker in (b"\xff\xd8", b"\xff\xd9", b"\xff\xf0"):  # Pillow reads on, libjpeg does not
        refused(photo[:2] + marker + photo[2:], "damaged")


# Tags ------------------------------------------------------------------------------------------


def tiff(tags: dict[int, tuple[int, int, int]], content: bytes = b"", order: str = "<") -> bytes:
    """A TIFF file, or EXIF data, of tags (type, count, value or place); `content` is at byte 8."""
    start = 8 + len(content)
    body = b"".join(
        struct.pack(order + "HHL", tag, kind, count) + struct.pack(order + "HH", value, 0)
        if kind == 3 and count == 1
        else struct.pack(order + "HHLL", tag, kind, count, value)
        for tag, (kind, count, value) in sorted(tags.items())
    )
    head = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(tags)) + body + bytes(4)
    return head + struct.pack(order + "L", start) + content + directory


def grey_tiff(width: int = 16, height: int = 16) -> dict[int, tuple[int, int, int]]:
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    return tags | {273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, width * height)}


OVERLAPPING = {20_000 + number: (1, 250, 8) for number in range(40)}  # type, count, place


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_whose_values_lie_on_one_another_is_refused(order: str) -> None:
    pixels = bytes(range(256))
    plain = load_image(tiff(grey_tiff(), pixels, order))
    assert plain[:, :, 0].tobytes() == pixels
    shared = dict(list(OVERLAPPING.items())[:2])  # as some programs write equal values
    np.testing.assert_array_equal(load_image(tiff(grey_tiff() | shared, pixels, order)), plain)
    refused(tiff(grey_tiff() | OVERLAPPING, pixels, order), "overlap")


def below(kind: int, tags: dict[int, tuple[int, int, int]], held: int = 256) -> tuple[Any, bytes]:
    """An entry for a directory of `tags` below the first, and the content that holds both."""
    directory = tiff(tags, bytes(held))[8 + held :]
    return (kind, 1, 8 + held), bytes(held) + directory


@pytest.mark.parametrize("tag", [34665, 34853])
@pytest.mark.parametrize("kind", [3, 4, 9])
def test_directories_below_the_first_are_checked_as_well(tag: int, kind: int) -> None:
    for tags, trouble in ((OVERLAPPING, "overlap"), ({37500: (7, 250, 8)}, "")):
        entry, content = below(kind, tags)
        data = tiff(grey_tiff() | {tag: entry}, content)
        if trouble:
            refused(data, trouble)
        else:
            assert load_image(data).shape == (16, 16, 3)
    entry, content = below(4, {tag: (4, 1, 264), 40965: (4, 1, 8), 37500: (7, 250, 8)})
    assert load_image(tiff(grey_tiff() | {tag: entry}, content)).shape == (16, 16, 3)  # a circle
    chain = b"".join(tiff({tag: (4, 1, 8 + 18 * n)})[8:] for n in range(1, 20))
    refused(tiff({34665: (4, 1, 8)} | grey_tiff(), chain), PIECES)


def test_a_big_tiff_is_checked_as_well() -> None:
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", big_tiff=True)
    assert load_image(buffer.getvalue())[:, :, 0].tobytes() == image.tobytes()
    entries = b"".join(struct.pack("<HHQQ", 20_000 + n, 1, 900, 16) for n in range(99))
    directory = struct.pack("<Q", 99) + entries
    refused(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + directory, "overlap")
    refused(struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 100_001), PIECES)


def test_metadata_whose_values_lie_on_one_another_is_not_read() -> None:
    exif = b"Exif\0\0" + tiff(OVERLAPPING | {274: (3, 1, 6)}, bytes(250))
    fine = b"Exif\0\0" + tiff({274: (3, 1, 6)}, bytes(250))
    for form in ("PNG", "WEBP"):
        assert load_image(encoded(form, exif=fine)).shape == (20, 24, 3)
        assert load_image(encoded(form, exif=exif)).shape == (24, 20, 3)  # not turned
    photo = encoded("JPEG")
    assert load_image(photo[:2] + segment(0xE1, fine) + photo[2:]).shape == (20, 24, 3)
    refused(photo[:2] + segment(0xE1, exif) + photo[2:], "overlap")
    halves = segment(0xE1, exif[:300]) + segment(0xE1, b"Exif\0\0" + exif[300:])
    refused(photo[:2] + halves + photo[2:], "overlap")
    refused(photo[:2] + segment(0xE1, fine) * 101 + photo[2:], PIECES)


def test_metadata_that_begin_again_and_again_are_not_read() -> None:
    """Pillow copies all the rest for each beginning: hours for the largest upload."""
    again = b"Exif\0\0" * 10_000 + tiff({274: (3, 1, 6)}, bytes(250))
    for form in ("PNG", "WEBP"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_image(encoded(form, exif=again)).shape == (24, 20, 3)  # not turned
    photo = encoded("JPEG")
    refused(photo[:2] + segment(0xE1, again) + photo[2:], PIECES)
    with pytest.raises(ImageError, match=PIECES):
        imagefiles.check_exif(again)


def test_an_avif_whose_metadata_lie_on_one_another_is_refused() -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    fine = tiff({274: (3, 1, 6)}, bytes(250))
    assert load_image(encoded("AVIF", exif=fine)).shape == (20, 24, 3)
    entry, content = below(4, OVERLAPPING)
    for hostile in (tiff(OVERLAPPING, bytes(250)), tiff({34665: entry}, content)):
        refused(encoded("AVIF", exif=hostile), "overlap")
    refused(encoded("AVIF", exif=fine) + b"II*\0" * 11, PIECES)


def isobox(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def heif(
    items: int = 40, extents: bytes = b"", properties: bytes = b"", refer: bytes = b""
) -> bytes:
    """A HEIC file of the contents of its `iloc`, `ipma` and `iref`, its one property 1 MB long,
    as is the rest of the file; the widths of all numbers are those of version 0."""
    infe = isobox(b"infe", b"\2\0\0\0" + bytes(4) + b"hvc1\0") * items
    boxes = (
        isobox(b"iinf", bytes(4), struct.pack(">H", items), infe),
        isobox(b"iloc", bytes(4), b"\x04\x00", extents or bytes(2)),
        isobox(
            b"iprp",
            isobox(b"ipco", isobox(b"colr", bytes(1_000_000))),
            isobox(b"ipma", bytes(4), properties or bytes(4)),
        ),
        isobox(b"iref", bytes(4), isobox(b"cdsc", refer)) if refer else b"",
    )
    head = isobox(b"ftyp", b"heic\0\0\0\0mif1heic")
    return head + isobox(b"meta", bytes(4), *boxes) + isobox(b"mdat", bytes(1_000_000))


def looked_through(data: bytes) -> None:
    imagefiles.check_file("HEIF", io.BytesIO(data))


def extents_of(count: int, size: int) -> bytes:
    one = struct.pack(">HHHI", 7, 0, 1, size)  # all of item 7
    return struct.pack(">H", count) + one * count


def properties_of(count: int) -> bytes:
    return struct.pack(">I", count) + struct.pack(">HBB", 7, 1, 0x81) * count


def references_of(count: int) -> bytes:
    return struct.pack(">HH", 7, count) + bytes(2 * count)


@pytest.mark.parametrize(
    "shared",
    [
        lambda count: heif(extents=extents_of(count, 1_000_000)),
        lambda count: heif(properties=properties_of(count)),
        lambda count: heif(extents=extents_of(1, 1_000_000), refer=references_of(count)),
        lambda count: heif(properties=properties_of(1), refer=references_of(count)),
    ],
)
def test_a_heic_file_whose_pictures_share_what_is_copied_for_each_is_refused(shared: Any) -> None:
    looked_through(shared(40))
    with pytest.raises(ImageError, match="overlap"):
        looked_through(shared(60))


def test_a_heic_file_of_countless_items_is_refused() -> None:
    looked_through(heif(1000))  # one of 200 megapixels has 768 tiles
    with pytest.raises(ImageError, match=PIECES):
        looked_through(heif(1001))
    endless = struct.pack(">HHH", 7, 0, 65_535) + bytes(4 * 65_535)
    for data in (
        heif() + isobox(b"free") * 100_000,
        heif(extents=b"\0\2" + endless * 2),
        heif(properties=struct.pack(">I", 200_000) + bytes(3 * 200_000)),
    ):
        with pytest.raises(ImageError, match=PIECES):
            looked_through(data)


def test_a_damaged_heic_file_is_looked_through_without_a_crash() -> None:
    data = heif(3, extents_of(3, 9), properties_of(3), references_of(3)).replace(
        bytes(1_000_000), b""
    )
    looked_through(data)
    rng = np.random.default_rng(0)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] = rng.integers(256)
        for damaged in (data[:at], bytes(changed), data[:at] + b"\xff" * 9 + data[at:]):
            try:
                looked_through(damaged)
            except ValueError as error:  # an ImageError, too
                assert str(error)  # noqa: PT017


def test_honest_heic_files_are_read() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x010E] = "a crowd"
    extras = {"exif": exif.tobytes(), "icc_profile": encoded("JPEG") * 99}
    for pictures in (1, 4):
        for info in ({}, extras):
            file = pillow_heif.HeifFile()
            for _ in range(pictures):
                picture = Image.new("RGB", (64, 96))
                picture.info.update(info)
                file.add_from_pillow(picture)
            buffer = io.BytesIO()
            file.save(buffer)
            for trailer in (b"", b"\0\0\0\1SEFT", b"\0\0\0\6no box"):  # what phones may add
                assert load_image(buffer.getvalue() + trailer).shape == (96, 64, 3)


def test_metadata_in_a_pngs_text_is_not_read_either() -> None:
    def png(exif: bytes) -> bytes:
        text = b"Raw profile type exif\0\nexif\n%d\n" % len(exif) + exif.hex().encode()
        data = encoded("PNG")
        return data[:33] + chunk(b"tEXt", text) + data[33:]

    exif = b"Exif\0\0" + tiff({274: (3, 1, 6)}, bytes(250))
    assert load_image(png(exif)).shape == (20, 24, 3)
    exif = b"Exif\0\0" + tiff(OVERLAPPING | {274: (3, 1, 6)}, bytes(250))
    assert load_image(png(exif)).shape == (24, 20, 3)


def test_a_tiff_of_countless_strips_is_refused() -> None:
    places = struct.pack("<L", 8) * 100_001
    strips = {273: (4, 100_001, 8), 278: (4, 1, 1)}
    refused(tiff(grey_tiff(1, 100_001) | strips, places), PIECES)
    strips = {273: (4, 1000, 8), 278: (4, 1, 1), 279: (4, 1000, 8)}
    assert load_image(tiff(grey_tiff(1, 1000) | strips, places)).shape == (1000, 1, 3)


@pytest.mark.parametrize(("side", "fine"), [(256, True), (4096, True), (16_384, False)])
def test_a_tiffs_tile_may_not_dwarf_its_picture(side: int, fine: bool) -> None:
    tile = zlib.compress(bytes(side * side) if fine else b"")
    tags = {tag: value for tag, value in grey_tiff().items() if tag not in (273, 278, 279)}
    tags |= {322: (4, 1, side), 323: (4, 1, side), 324: (4, 1, 8), 325: (4, 1, len(tile))}
    data = tiff(tags | {259: (3, 1, 8)}, tile + bytes(len(tile) % 2))
    if fine:
        assert load_image(data).shape == (16, 16, 3)
    else:
        refused(data, "tiles of 16,384 x 16,384")


# Other formats ---------------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


@pytest.mark.parametrize("extra", [chunk(b"abCd", b""), chunk(b"tEXt", b"a\0b")])
def test_a_png_of_countless_chunks_is_refused(extra: bytes) -> None:
    data = encoded("PNG")
    assert load_image(data[:33] + extra * 2000 + data[33:]).shape == (24, 20, 3)
    refused(data[:33] + extra * 100_000 + data[33:], PIECES)
    refused(data[:-12] + extra * 100_000 + data[-12:], PIECES)


@pytest.mark.parametrize("version", [b"GIF87a", b"GIF89a"])
def test_a_gif_of_countless_blocks_is_refused(version: bytes) -> None:
    data = encoded("GIF", "P")
    start = 13 + (6 << (data[10] & 7))

    def gif(blocks: bytes) -> bytes:
        return version + data[6:start] + blocks + data[start:]

    line = b"\x50" + b"a" * 80
    netscape = b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0"
    for extra in (b"!\xfe" + line * 900 + b"\0", netscape, b"!\xff" + line * 50_000 + b"\0"):
        assert load_image(gif(extra)).shape == (24, 20, 3)
    for extra in (
        b"!\xfe" + line * 1100 + b"\0",
        b"!\xfe\1a\0" * 1100,
        b"!\xff" + line * 100_001 + b"\0",
        b"!\xff\x0bNETSCAPE2.0\0" + line * 100_001 + b"\0",  # Pillow reads on after this end
    ):
        refused(gif(extra), PIECES)


def run_length_bmp(side: int) -> bytes:
    rows = b"\1\0\0\0" * side  # one pixel and the end of the row
    head = struct.pack(
        "<IIIIiiHHIIIIII", 0, 0, 1078, 40, side, side, 1, 8, 1, len(rows), 0, 0, 0, 0
    )
    return b"BM" + head + bytes(1024) + rows + b"\0\1"


def test_a_large_run_length_bmp_is_refused_for_pillow_unpacks_it_byte_by_byte() -> None:
    assert load_image(run_length_bmp(300)).shape == (300, 300, 3)
    refused(run_length_bmp(4000), "more than the 10,000,000 allowed in a BMP file of this kind")
    assert load_image(encoded("BMP", size=(4000, 4000)), max_pixels=None).shape == (4000, 4000, 3)


def moving_webp(side: int) -> bytes:
    """Two frames of one pixel on a canvas of side x side."""

    def part(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)

    pixel = encoded("WEBP", size=(1, 1), lossless=True)[12:]
    frame = part(b"ANMF", bytes(12) + b"\x0a\0\0\0" + pixel)
    canvas = struct.pack("<I", side - 1)[:3] * 2
    body = part(b"VP8X", b"\x12\0\0\0" + canvas) + part(b"ANIM", bytes(6)) + frame * 2
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def test_a_webp_may_have_fewer_pixels_than_other_files() -> None:
    assert load_image(moving_webp(50)).shape == (50, 50, 3)
    refused(moving_webp(10_001), "more than the 100,000,000 allowed in a WEBP file")
    with pytest.raises(ImageError, match="the 99 allowed"):
        load_image(moving_webp(10), max_pixels=99)
