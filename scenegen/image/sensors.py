"""Sensor sizes of cameras, for files whose EXIF names the camera and the focal length only.

Phones with several lenses are left out: their sensors differ by lens, and they state the 35 mm
equivalent. Sizes are the makers' specifications, rounded to 0.1 mm where these differ by model.
"""

from __future__ import annotations

import re

_FULL_FRAME = (36.0, 24.0)
_APS_H = (27.9, 18.6)
_APS_C = (23.5, 15.6)
_CANON_APS_C = (22.3, 14.9)
_FOUR_THIRDS = (17.3, 13.0)
_ONE_INCH = (13.2, 8.8)
_MEDIUM_FORMAT = (43.8, 32.9)

_SENSORS: tuple[tuple[str, tuple[float, float]], ...] = (  # the first match wins
    (r"canon eos[- ]?(1ds|1d x|1d c|5d|5ds|6d|ra?|rp|r1|r3|r5|r6|r8)\b", _FULL_FRAME),
    (r"canon eos r[56]m\d", _FULL_FRAME),
    (r"canon eos[- ]?1d\b", _APS_H),
    (r"canon eos\b", _CANON_APS_C),
    (r"canon powershot g1 ?x mark iii\b", _CANON_APS_C),
    (r"canon powershot g[3579] ?x\b", _ONE_INCH),
    (r"nikon d([356]|[34]s|3x|4|6\d\d|7[058]0|8\d\d[ae]?|f)\b", _FULL_FRAME),
    (r"nikon z ?[56789f](_\d)?\b", _FULL_FRAME),
    (r"nikon (d\d+[a-z]?|z ?(30|50|fc))", _APS_C),
    (r"nikon 1 ", _ONE_INCH),
    (r"sony (ilce-[179]|slt-a99|ilca-99|dslr-a(85|90)0|dsc-rx1(r|rm2)?\b)", _FULL_FRAME),
    (r"sony (ilce|nex|slt|ilca|dslr|zv-e10)", _APS_C),
    (r"sony (dsc-rx10|zv-1)", _ONE_INCH),
    (r"fujifilm gfx", _MEDIUM_FORMAT),
    (r"fujifilm x(-(a|e|h|m|pro|s\d|t)\d|100|70\b)", _APS_C),
    (r"(ricoh.* )?pentax k-1\b", _FULL_FRAME),
    (r"(ricoh.* )?pentax k", _APS_C),
    (r"ricoh gr( ii| iiix?)?$", _APS_C),
    (r"(olympus|om digital).* (e-(m|p|[135]\b|\d{3}\b)|om-|pen-f)", _FOUR_THIRDS),
    (r"panasonic dm?c-(g|l10?\b)", _FOUR_THIRDS),
    (r"panasonic dc-s", _FULL_FRAME),
    (r"leica (q\d?|sl\d?)\b", _FULL_FRAME),
    (r"hasselblad (x[12]d|907x)", _MEDIUM_FORMAT),
    (r"(hasselblad l1d-20c|dji fc6310)", _ONE_INCH),
    (r"dji fc(220|300[csx]|330|350)\b", (6.17, 4.55)),
    (r"apple iphone 3gs$", (3.6, 2.7)),
    (r"apple iphone (4|4s|5|5c)$", (4.54, 3.42)),
    (r"apple iphone (5s|6|6 plus|6s|6s plus|7|8|se)$", (4.89, 3.67)),
)


def sensor_size(camera: str) -> tuple[float, float] | None:
    """Sensor of a camera, long side first, in millimetres; None when it is not known.

    Args:
        camera: Make and model, as EXIF writes them ("Canon EOS 350D DIGITAL").
    """
    name = camera.lower()
    return next((size for pattern, size in _SENSORS if re.match(pattern, name)), None)
