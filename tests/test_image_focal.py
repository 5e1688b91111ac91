"""Field of view from EXIF, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from scenegen.image import load_photo
from scenegen.image.focal import focal_length
from scenegen.image.sensors import sensor_size

CANON = {Base.Make: "Canon", Base.Model: "Canon EOS 350D DIGITAL"}
CANON_LENS = {  # 3456000 / 874 pixels per inch: 155.678 per mm, a sensor of 22.2 x 14.8 mm
    Base.FocalLength: 24.0,
    Base.FocalPlaneXResolution: IFDRational(3456000, 874),
    Base.FocalPlaneResolutionUnit: 2,
    Base.ExifImageWidth: 3456,
    Base.ExifImageHeight: 2304,
}


def exif(main: dict[Any, Any], detail: dict[Any, Any]) -> Image.Exif:
    data = Image.Exif()
    data.update(main)
    data.get_ifd(IFD.Exif).update(detail)
    return data


def photo(
    folder: Path, size: tuple[int, int], main: dict[Any, Any], detail: dict[Any, Any]
) -> tuple[float | None, str]:
    path = folder / "a.jpg"
    Image.new("RGB", size).save(path, exif=exif(main, detail))
    loaded = load_photo(path)
    return loaded.fov_degrees, loaded.fov_source


def test_film_equivalent_of_a_3_to_2_picture(tmp_path: Path) -> None:
    """36 x 24 mm is 3:2 itself: 2 atan(18 / 28) = 65.470 degrees."""
    fov, source = photo(tmp_path, (300, 200), {}, {Base.FocalLengthIn35mmFilm: 28})
    assert fov == pytest.approx(65.470, abs=1e-3)
    assert source == "EXIF 35 mm equivalent 28 mm"


def test_film_equivalent_is_read_by_the_diagonal(tmp_path: Path) -> None:
    """4:3, 26 mm: the width is 0.8 of the diagonal, 2 atan(0.4 * 43.2666 / 26) = 67.300."""
    fov, _ = photo(tmp_path, (400, 300), {}, {Base.FocalLengthIn35mmFilm: 26})
    assert fov == pytest.approx(67.300, abs=1e-2)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_upright_pictures(suffix: str, tmp_path: Path) -> None:
    """Turned by its orientation, 3:2 becomes 2:3: 2 atan(12 / 28) = 46.397 degrees."""
    data = exif({Base.Orientation: 6}, {Base.FocalLengthIn35mmFilm: 28})
    Image.new("RGB", (300, 200)).save(tmp_path / f"a.{suffix}", exif=data.tobytes())
    loaded = load_photo(tmp_path / f"a.{suffix}")
    assert loaded.original_size == (200, 300)
    assert loaded.fov_degrees == pytest.approx(46.397, abs=1e-3)


def test_the_crop_to_even_sides_is_counted(tmp_path: Path) -> None:
    """301 x 200, 28 mm: f = 28 / 43.2666 * 361.387 = 233.873 px; 2 atan(150 / 233.873) = 65.353
    for the 300 columns that are left."""
    fov, _ = photo(tmp_path, (301, 200), {}, {Base.FocalLengthIn35mmFilm: 28})
    assert fov == pytest.approx(65.353, abs=2e-2)


def test_the_working_size_changes_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (1500, 1000)).save(
        tmp_path / "a.jpg", exif=exif({}, {Base.FocalLengthIn35mmFilm: 28})
    )
    for long_side in (1500, 768, 300):
        fov = load_photo(tmp_path / "a.jpg", long_side=long_side).fov_degrees
        assert fov == pytest.approx(65.470, abs=1e-3)


def test_a_file_cropped_after_it_was_taken(tmp_path: Path) -> None:
    """Taken 4000 x 3000 with 26 mm: f = 26 / 43.2666 * 5000 = 3004.6 px. The file of 400 x 225
    kept the full width at a tenth: f = 300.46, 2 atan(200 / 300.46) = 67.30, as uncropped."""
    taken = {Base.ExifImageWidth: 4000, Base.ExifImageHeight: 3000}
    detail = {Base.FocalLengthIn35mmFilm: 26, **taken}
    assert photo(tmp_path, (400, 225), {}, detail)[0] == pytest.approx(67.30, abs=1e-2)
    # Turned upright by a program: 3000 x 4000, the file at 0.15; 2 atan(225 / 450.69).
    assert photo(tmp_path, (450, 600), {}, detail)[0] == pytest.approx(53.06, abs=1e-2)
    # Cropped square: the full height is left; f = 300.46 at 300 px, 2 atan(150 / 300.46).
    assert photo(tmp_path, (300, 300), {}, detail)[0] == pytest.approx(53.06, abs=1e-2)


def test_focal_plane_resolution(tmp_path: Path) -> None:
    """22.2 mm of sensor behind 24 mm: 2 atan(11.1 / 24) = 49.64, resized or not."""
    fov, source = photo(tmp_path, (300, 200), CANON, CANON_LENS)
    assert fov == pytest.approx(49.64, abs=1e-2)
    assert source == "EXIF 24 mm on a 22.2 mm sensor (Canon EOS 350D DIGITAL)"


@pytest.mark.parametrize(
    ("unit", "density"), [(3, 10 * 155.678), (4, 155.678), (5, 0.155678), (1, 3954.23)]
)
def test_focal_plane_units(unit: int, density: float, tmp_path: Path) -> None:
    detail = {
        **CANON_LENS,
        Base.FocalPlaneXResolution: density,
        Base.FocalPlaneResolutionUnit: unit,
    }
    fov, source = photo(tmp_path, (300, 200), {}, detail)
    assert fov == pytest.approx(49.64, abs=1e-2) and source == "EXIF 24 mm on a 22.2 mm sensor"


def test_a_shrunk_file_that_kept_its_resolution(tmp_path: Path) -> None:
    """1024 px at 155.678 per mm would be a 6.6 mm sensor; the camera has 22.3 mm:
    2 atan(11.15 / 24) = 49.84, with the height of 14.9 mm not filled."""
    detail = {**CANON_LENS, Base.ExifImageWidth: 1024, Base.ExifImageHeight: 683}
    fov, source = photo(tmp_path, (1024, 683), CANON, detail)
    assert fov == pytest.approx(49.84, abs=2e-2)
    assert source == "EXIF 24 mm on a 22.3 mm sensor (Canon EOS 350D DIGITAL)"


def test_sensor_table(tmp_path: Path) -> None:
    """4.89 mm of sensor behind 4.15 mm, 4:3: 2 atan(2.445 / 4.15) = 61.0; upright, the short
    side of 3.6675 mm: 2 atan(1.83375 / 4.15) = 47.67."""
    phone = {Base.Make: "Apple\0", Base.Model: "iPhone 6 "}
    lens = {Base.FocalLength: IFDRational(83, 20)}
    fov, source = photo(tmp_path, (400, 300), phone, lens)
    assert fov == pytest.approx(61.0, abs=2e-2)
    assert source == "EXIF 4.15 mm on a 4.89 mm sensor (Apple iPhone 6)"
    fov, _ = photo(tmp_path, (400, 300), {**phone, Base.Orientation: 8}, lens)
    assert fov == pytest.approx(47.67, abs=3e-2)
    # Half the sensor by digital zoom: 2 atan(2.445 / 8.3) = 32.83
    fov, _ = photo(tmp_path, (400, 300), phone, {**lens, Base.DigitalZoomRatio: 2.0})
    assert fov == pytest.approx(32.83, abs=2e-2)


def test_the_order_of_the_routes(tmp_path: Path) -> None:
    detail = {**CANON_LENS, Base.FocalLengthIn35mmFilm: 50}
    assert photo(tmp_path, (300, 200), CANON, detail)[1] == "EXIF 35 mm equivalent 50 mm"
    detail[Base.FocalLengthIn35mmFilm] = 0  # EXIF: unknown
    assert "22.2 mm sensor" in photo(tmp_path, (300, 200), CANON, detail)[1]
    del detail[Base.FocalPlaneXResolution]
    assert "22.3 mm sensor" in photo(tmp_path, (300, 200), CANON, detail)[1]
    del detail[Base.FocalLength]
    assert photo(tmp_path, (300, 200), CANON, detail) == (None, "not stated")


def test_implausible_values_are_passed_over(tmp_path: Path) -> None:
    absurd = {Base.FocalLengthIn35mmFilm: 60000}
    fov, source = photo(tmp_path, (300, 200), {}, absurd)
    assert fov is None
    assert source == "not stated (EXIF 35 mm equivalent 6e+04 mm is not plausible)"
    fov, source = photo(tmp_path, (300, 200), CANON, {**CANON_LENS, **absurd})
    assert fov == pytest.approx(49.64, abs=1e-2)
    assert photo(tmp_path, (300, 200), {}, {Base.FocalLengthIn35mmFilm: 1})[0] is None
    tiny = {**CANON_LENS, Base.FocalPlaneXResolution: 1e6}  # a sensor of 0.09 mm
    assert photo(tmp_path, (300, 200), {}, tiny) == (None, "not stated")


@pytest.mark.parametrize(
    "value", ["wide", b"\xff", (28, 35), IFDRational(0, 0), IFDRational(5, 0), -28.0, float("inf")]
)
def test_nonsense_is_not_stated(value: object) -> None:
    detail = dict.fromkeys(
        (Base.FocalLength, Base.FocalLengthIn35mmFilm, Base.DigitalZoomRatio, Base.ExifImageWidth),
        value,
    )
    found = focal_length(exif(CANON, detail), (300, 200))
    assert found.pixels is None and found.source == "not stated"


def test_exif_that_pillow_cannot_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Image.Image) -> None:
        raise SyntaxError("not a TIFF file")

    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "getexif", broken)
    loaded = load_photo(tmp_path / "a.png")
    assert loaded.fov_degrees is None and loaded.fov_source == "not stated"


def test_broken_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    for junk in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(range(200)), b"Exif\0\0"):
        Image.new("RGB", (300, 200)).save(tmp_path / "a.jpg", exif=junk)
        loaded = load_photo(tmp_path / "a.jpg")
        assert loaded.fov_degrees is None and loaded.fov_source.startswith("not stated")


@pytest.mark.parametrize(
    ("camera", "width"),
    [
        ("Canon EOS 5D Mark IV", 36.0),
        ("Canon EOS-1D X Mark II", 36.0),
        ("Canon EOS-1D Mark IV", 27.9),
        ("Canon EOS R5m2", 36.0),
        ("Canon EOS R7", 22.3),
        ("Canon EOS R10", 22.3),
        ("Canon EOS 60D", 22.3),
        ("Canon EOS 6D", 36.0),
        ("Canon EOS REBEL T3i", 22.3),
        ("Canon PowerShot G7 X Mark II", 13.2),
        ("NIKON D700", 36.0),
        ("NIKON D70", 23.5),
        ("NIKON D7000", 23.5),
        ("NIKON Z 6_2", 36.0),
        ("NIKON Z 50", 23.5),
        ("NIKON Z fc", 23.5),
        ("SONY ILCE-7M3", 36.0),
        ("SONY ILCE-6400", 23.5),
        ("SONY DSC-RX1RM2", 36.0),
        ("SONY DSC-RX100M3", 13.2),
        ("FUJIFILM X-T3", 23.5),
        ("RICOH IMAGING COMPANY, LTD. PENTAX K-1", 36.0),
        ("PENTAX K-50", 23.5),
        ("OLYMPUS IMAGING CORP. E-M10", 17.3),
        ("Panasonic DMC-GX7", 17.3),
        ("DJI FC220", 6.17),
        ("Apple iPhone 5s", 4.89),
        ("Apple iPhone 13 Pro", None),
        ("Apple iPhone 8 Plus", None),
        ("FUJIFILM X-S1", None),
        ("RICOH GR DIGITAL 4", None),
        ("", None),
    ],
)
def test_sensors(camera: str, width: float | None) -> None:
    size = sensor_size(camera)
    assert (size and size[0]) == width
    assert size is None or size[0] > size[1]
