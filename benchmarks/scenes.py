"""Scenes for benchmarks, and what is measured beside them. Same seed, same bytes.

  rgbd_like     what lifting depth maps gives: one small opaque disc per pixel of a few photographs
  trained_like  what fitting splats to photographs gives: all sizes, half of them nearly transparent

Both show one analytic room with spheres in it. ``distinct`` is for accuracy: no two splats tie.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float, Float64
from numba import prange
from torch import Tensor

from benchmarks.metrics import Contestant, Timing
from renderers import Camera, SceneError, Splats
from renderers.sh import SH_C0

HALF_ROOM = np.array([3.0, 1.5, 3.0])
"""From the middle of the room to its walls, in metres."""
SPHERES = 12
"""Spheres thrown into the room, of which those stay that leave room for the cameras."""
CLEARANCE = 0.7
"""No sphere comes nearer than this to the middle of the room, in metres."""
FOV_DEGREES = 70.0
"""Horizontal field of view of all cameras."""
SOURCE = (640, 480)
"""Width and height of the photographs that scenes are lifted from, in pixels."""
TURN = 0.55
"""Yaw from one photograph to the next, in radians."""
NOD = 0.08
"""Photographs look down, straight and up in turn by this, in radians."""
SWAY = 0.25
"""Photographs are taken within this of the middle along each axis, in metres."""
DISC = 0.7
"""Standard deviation of a lifted disc, in pixels of its photograph."""
THICKNESS = 0.1
"""The same along its normal."""
GRAZING = 0.25
"""Discs stretch no more than if they were seen at this cosine."""

Array = Float64[np.ndarray, "..."]


def novel_view(width: int, height: int) -> Camera:
    """The view that benchmarks draw: none of those that the scenes were lifted from."""
    return Camera.from_fov(FOV_DEGREES, width, height).moved(
        right=0.30,
        down=-0.1,
        forward=0.25,
        yaw_degrees=math.degrees(0.25),
        pitch_degrees=math.degrees(0.03),
    )


@lru_cache(maxsize=2)
def shrunk(kind: str, n: int, shrink: float) -> Splats:
    """A scene of a kind, "rgbd" or "trained", and the two made last are kept.

    Args:
        kind: Which maker to ask.
        n: Number of splats at full size.
        shrink: Factor on the edges of photographs; splats become fewer by its square.
    """
    make = {"rgbd": rgbd_like, "trained": trained_like}[kind]
    return make(round(n * shrink**2), (round(SOURCE[0] * shrink), round(SOURCE[1] * shrink)))


def rgbd_like(n: int, source: tuple[int, int] = SOURCE, seed: int = 0) -> Splats:
    """``n`` discs on the surfaces of the room, one per pixel of as many photographs as it takes.

    Args:
        n: Number of splats; the last photograph is cut off from below.
        source: Width and height of the photographs, in pixels.
        seed: Of all that is random.
    """
    rng = np.random.default_rng(seed)
    points, normals, pixels, cosines = _surfaces(n, source, rng)
    across = DISC * pixels / np.sqrt(cosines)
    scales = np.stack([across, across, DISC * THICKNESS * pixels], axis=1)
    scales *= rng.lognormal(0.0, 0.15, (n, 1))
    opacities = rng.uniform(0.6, 0.99, n)
    return _splats(points, _facing(normals, rng), scales, opacities, _texture(points))


def trained_like(n: int, source: tuple[int, int] = SOURCE, seed: int = 0) -> Splats:
    """As :func:`rgbd_like`, with log-normal sizes, off the surface by 1 cm, opacities bimodal.

    Sizes do not depend on ``source``: with less splats there are holes between them.
    """
    rng = np.random.default_rng(seed)
    points, normals, _, _ = _surfaces(n, source, rng)
    points = points + normals * rng.normal(0.0, 0.01, (n, 1))
    scales = rng.lognormal(math.log(0.009), 0.75, (n, 1)) * rng.lognormal(0.0, 0.5, (n, 3))
    scales[:, 2] *= 0.3
    faint, solid = rng.beta(1.2, 6.0, n), rng.beta(5.0, 1.2, n)
    opacities = np.where(rng.random(n) < 0.6, faint, solid).clip(0.006, 0.995)
    return _splats(points, _facing(normals, rng), scales, opacities, _texture(points))


def distinct(n: int, width: int, height: int, seed: int = 0) -> Splats:
    """Splats of all shapes in :func:`novel_view`, their depths evenly spaced from 1 to 5 m.

    So none tie, and float32 draws them in the same order as float64.
    """
    rng = np.random.default_rng(seed)
    depths = torch.from_numpy(np.linspace(1.0, 5.0, n))
    pixels = torch.from_numpy(rng.uniform(0.0, 1.0, (n, 2)) * [width, height])
    points = novel_view(width, height).unproject(pixels, depths).numpy()
    scales = np.exp(rng.normal(-3.5, 0.6, (n, 3)))
    quats = rng.normal(size=(n, 4))
    return _splats(points, quats, scales, rng.uniform(0.05, 0.95, n), rng.random((n, 3)))


def with_harmonics(splats: Splats, degree: int, seed: int = 0) -> Splats:
    """The same splats, their colours changing with the direction they are seen from."""
    rng = np.random.default_rng(seed)
    sh = rng.normal(0.0, 0.05 / SH_C0, (len(splats), (degree + 1) ** 2 - 1, 3))
    return replace(splats, sh=torch.from_numpy(sh).to(splats.colors))


def surfels_of(
    splats: Splats,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Points, unit normals and radii (metres) of surfels in place of :func:`rgbd_like` splats.

    The normal is the third axis, and the radius one standard deviation along the first.
    """
    w, x, y, z = (splats.quats / splats.quats.norm(dim=1, keepdim=True)).unbind(1)
    normals = torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
    return splats.means, normals, splats.scales[:, 0].contiguous()


def _surfaces(
    n: int, source: tuple[int, int], rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """What the photographs see: points, normals, size of a pixel there (metres), and cosines."""
    spheres, found, view = _spheres(rng), [], 0
    while len(found) * source[0] * source[1] < n:
        right, down, forward = rng.uniform(-SWAY, SWAY, 3)
        camera = Camera.from_fov(FOV_DEGREES, *source, torch.eye(4, dtype=torch.float64)).moved(
            right, down, forward, math.degrees(view * TURN), math.degrees(NOD * (view % 3 - 1))
        )
        found.append(_photograph(camera, spheres))
        view += 1
    points, normals, pixels, cosines = (
        np.concatenate(part)[:n] for part in zip(*found, strict=True)
    )
    return points, normals, pixels, cosines


def _photograph(camera: Camera, spheres: Array) -> tuple[Array, Array, Array, Array]:
    """See :func:`_surfaces`, for one camera, row by row."""
    pixels = camera.pixel_centers().double().reshape(-1, 2)
    ahead = camera.unproject(pixels, torch.ones(len(pixels), dtype=torch.float64))
    eye = camera.center.numpy()
    rays = ahead.numpy() - eye  # z is 1 along each: lengths along them are depths
    depths, normals = _cast(eye, rays, spheres)
    towards = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    cosines = np.abs((normals * towards).sum(1)).clip(GRAZING, 1.0)
    size = depths / camera.px_from_cam[0, 0].item()
    return eye + depths[:, None] * rays, normals, size, cosines


def _cast(eye: Array, rays: Array, spheres: Array) -> tuple[Array, Array]:
    """First surface along each ray: how many times its length away, and the normal towards us."""
    with np.errstate(divide="ignore"):
        walls = (np.copysign(HALF_ROOM, rays) - eye) / rays
    axis = walls.argmin(1)
    rows = np.arange(len(rays))
    depths, normals = walls[rows, axis], np.zeros_like(rays)
    normals[rows, axis] = -np.sign(rays[rows, axis])
    squared = (rays * rays).sum(1)
    for *center, radius in spheres:
        to_eye = eye - center
        half_b = rays @ to_eye
        discriminant = half_b**2 - squared * (to_eye @ to_eye - radius**2)
        near = (-half_b - np.sqrt(discriminant.clip(0.0))) / squared
        hit = (discriminant > 0.0) & (near > 1e-3) & (near < depths)
        depths = np.where(hit, near, depths)
        outwards = (to_eye + near[:, None] * rays) / radius
        normals = np.where(hit[:, None], outwards, normals)
    return depths, normals


def _spheres(rng: np.random.Generator) -> Array:
    """Centres and radii, (k, 4), in metres."""
    centers = rng.uniform(-1.0, 1.0, (SPHERES, 3)) * (HALF_ROOM - 0.6)
    spheres = np.column_stack([centers, rng.uniform(0.15, 0.5, SPHERES)])
    return spheres[np.linalg.norm(centers, axis=1) > spheres[:, 3] + CLEARANCE]


def _facing(normals: Array, rng: np.random.Generator) -> Array:
    """Quaternions that turn z to the normals, and by any angle around them.

    The shortest turn from z to a normal is (1 + n_z, -n_y, n_x, 0), up to its length.
    """
    x, y, z = normals.T
    shortest = np.stack([1.0 + z, -y, x, np.zeros_like(x)], axis=1)
    shortest[z < -0.999999] = 0.0, 1.0, 0.0, 0.0  # half a turn, around any axis across
    shortest /= np.linalg.norm(shortest, axis=1, keepdims=True)
    half = rng.uniform(0.0, math.pi, len(normals))
    c, s = np.cos(half), np.sin(half)
    w, i, j, _ = shortest.T
    return np.stack([w * c, i * c + j * s, j * c - i * s, w * s], axis=1)


def _texture(points: Array) -> Array:
    """Colours with detail of all sizes, 0 to 1."""
    waves = np.sin(7.0 * points) * np.cos(5.3 * points[:, [1, 2, 0]])
    return (0.5 + 0.35 * (waves + 0.4 * np.sin(31.0 * points[:, [2, 0, 1]]))).clip(0.0, 1.0)


def _splats(*fields: Array) -> Splats:
    return Splats(*(torch.from_numpy(field.astype(np.float32)) for field in fields))


# What is measured beside them


def calibration() -> Contestant:
    """The unit that frames are measured in: arithmetic, and reading from all over a table.

    The table fits the caches, so that other programs disturb it as little as they disturb
    drawing. Never change this: baselines would lose their meaning.
    """
    table = np.linspace(0.0, 1.0, 1 << 16, dtype=np.float32)
    places = np.random.default_rng(0).integers(0, len(table), 1 << 20, dtype=np.int32)
    out = np.empty(len(places), np.float32)
    return Contestant(lambda _: _work(table, places, out))


@numba.njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def _work(table, places, out):
    size = 1024
    for block in prange(len(out) // size):
        part = np.empty(size, np.float32)
        for i in range(size):
            part[i] = table[places[block * size + i]]
        for _ in range(60):
            for i in range(size):
                x = part[i]
                x = x * (np.float32(1.5) - np.float32(0.5) * x * x)
                part[i] = x * np.float32(0.99) + np.float32(0.001)
        for i in range(size):
            out[block * size + i] = part[i]


def as_arrays(splats: Splats) -> dict[str, np.ndarray]:
    """Fields as other programs take them: plain float32, without harmonics."""
    names = ("means", "quats", "scales", "opacities", "colors")
    return {name: np.ascontiguousarray(getattr(splats, name).detach().numpy()) for name in names}


def for_mitsuba(arrays: dict[str, np.ndarray], camera: Camera) -> dict[str, Any]:
    """The scene and the view as a dictionary for ``mitsuba.load_dict``, one ray per pixel.

    Mitsuba's camera has x to the left and y up, and its quaternions end with w.
    """
    import mitsuba

    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    harmonics = (arrays["colors"] - 0.5) / SH_C0
    tensors = {
        "centers": arrays["means"],
        "scales": arrays["scales"],
        "quaternions": arrays["quats"][:, [1, 2, 3, 0]],
        "opacities": arrays["opacities"][:, None],
        "sh_coeffs": harmonics,
    }
    tensors = {key: mitsuba.TensorXf(np.ascontiguousarray(a)) for key, a in tensors.items()}
    film = {"type": "hdrfilm", "width": camera.width, "height": camera.height}
    pose = mitsuba.ScalarTransform4f(camera.world_from_cam.double().numpy() @ flip)
    return {
        "type": "scene",
        "integrator": {"type": "volprim_rf_basic", "srgb_primitives": False},
        "sensor": {
            "type": "perspective",
            "fov": camera.fov_degrees,
            "to_world": pose,
            "film": {**film, "rfilter": {"type": "box"}, "pixel_format": "rgb"},
            "sampler": {"type": "independent", "sample_count": 1},
        },
        "splats": {"type": "ellipsoids", **tensors},
    }


class Mitsuba:
    """Mitsuba with a scene, in a process of its own: its compiler may take a process down."""

    def __init__(self, scene: Splats, camera: Camera) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        asked = (theirs, as_arrays(scene), camera, numba.get_num_threads())
        self._process = context.Process(target=_serve_mitsuba, args=asked, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Mitsuba:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def draw(self) -> Timing:
        """Time of one picture.

        Raises:
            SceneError: Mitsuba cannot draw here.
        """
        try:
            self._pipe.send("draw")
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            answer = f"its process ended with code {self._process.exitcode}"
        if isinstance(answer, Timing):
            return answer
        fix = "pip install mitsuba; DRJIT_LIBLLVM_PATH can name an LLVM that it works with"
        raise SceneError("Mitsuba cannot draw here", why=answer, fix=fix)


def _serve_mitsuba(pipe: Any, arrays: dict[str, Any], camera: Camera, threads: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # LLVM has much to say before it gives up
    try:
        import drjit
        import mitsuba

        mitsuba.set_variant("llvm_ad_rgb")
        drjit.set_thread_count(threads)
        scene = mitsuba.load_dict(for_mitsuba(arrays, camera))
        while pipe.recv():
            wall, cpu = time.perf_counter(), time.process_time()
            np.asarray(mitsuba.render(scene, spp=1))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            pipe.send(Timing(1e3 * wall, 1e3 * cpu))
    except Exception as error:  # to whoever asked
        pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
