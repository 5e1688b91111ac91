"""Draws training scenes with OpenGL on EGL, in software (llvmpipe) where there is no GPU.

Colours are drawn twice as fine and averaged; depth is drawn on its own, at the pixels' centres,
so that it is exact.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from PIL import Image

from renderers import Camera, SceneError
from scenegen.training import shaders
from scenegen.training.light import Light, lens_clip
from scenegen.training.shapes import Array, Batch, Picture, Scene

FINE = 2
"""Side of the square of samples that make a pixel's colour."""
NEAR, FAR = 0.04, 6000.0
"""Depths between which surfaces are drawn, in metres."""
CELL = 40.0
"""Side of the cells that are skipped when out of sight, in metres."""
TEXTURE_SIDE = 512
"""Textures are scaled down to this many pixels."""

_LOOKS = {"solid": 0, "cutout": 1, "unlit": 2}


def missing_gl() -> str | None:
    """Why scenes cannot be drawn here, or None when they can (as far as can be told cheaply)."""
    if importlib.util.find_spec("moderngl") is None:
        return "the package moderngl is not installed"
    return None


@dataclass(frozen=True, eq=False)
class _Draw:
    """What is needed to draw one batch, and the boxes around its cells (metres)."""

    shaded: Any
    plain: Any
    picture: Any
    mask: Any | None
    look: int
    starts: Array
    """Where each cell begins in the index buffer, and its end."""
    low: Array
    high: Array


@runtime_checkable  # the test-time type checker needs it
class SceneRenderer(Protocol):
    """What worlds are drawn by."""

    def load(self, scene: Scene) -> None:
        """Make a scene the one that is drawn."""
        ...

    def draw(self, camera: Camera, light: Light) -> tuple[Array, Array]:
        """See :meth:`GlRenderer.draw`."""
        ...


class GlRenderer:
    """One OpenGL context, one scene at a time, images of one shape at a time."""

    def __init__(self) -> None:
        """Open the context.

        Raises:
            SceneError: There is no moderngl, or EGL does not start.
        """
        if why := missing_gl():
            raise SceneError(
                "cannot draw training scenes",
                why=why,
                fix="pip install 'scenegen-worlds[training]'",
            )
        import moderngl

        try:
            create: Any = moderngl.create_context  # its types do not know of backends by name
            self.gl: Any = create(standalone=True, backend="egl")
        except Exception as error:  # moderngl raises bare Exceptions of many kinds here
            raise SceneError(
                "cannot draw training scenes",
                why=f"OpenGL does not start on EGL: {error}",
                fix="install EGL and a software driver (Debian: libegl1 libgl1-mesa-dri)",
            ) from error
        gl = self.gl
        self.colour = [gl.program(shaders.CORNER, shaders.colour(cut)) for cut in (False, True)]
        self.depth = [gl.program(shaders.CORNER, shaders.depth(cut)) for cut in (False, True)]
        self.sky = gl.program(shaders.SKY_CORNER, shaders.SKY_COLOUR)
        corners = gl.buffer(np.array([-1, -1, 1, -1, -1, 1, 1, 1], dtype="f4").tobytes())
        self.backdrop = gl.vertex_array(self.sky, [(corners, "2f", "place")])
        self.shadow = gl.depth_texture((shaders.SHADOW_SIDE, shaders.SHADOW_SIDE))
        self.shadow.compare_func = "<="
        self.shadow.repeat_x = self.shadow.repeat_y = False
        self.shadow_target = gl.framebuffer(depth_attachment=self.shadow)
        self.white = self._texture_of(Image.new("RGBA", (4, 4), (255, 255, 255, 255)))
        self.textures: dict[Picture, Any] = {}
        self.targets: dict[tuple[int, int], tuple[Any, Any]] = {}
        self.draws: list[_Draw] = []
        self.held: list[Any] = []

    def load(self, scene: Scene) -> None:
        """Take another scene; the one before is let go."""
        for thing in self.held:
            thing.release()
        self.draws, self.held = [], []
        if len(self.textures) > 400:
            for texture in self.textures.values():
                texture.release()
            self.textures = {}
        for batch in scene.batches():
            triangles, starts, low, high = _by_cell(batch)
            corners = self.gl.buffer(np.ascontiguousarray(batch.corners).tobytes())
            order = self.gl.buffer(np.ascontiguousarray(triangles).tobytes())
            cut = int(batch.material.look == "cutout")
            shaded = self._array(self.colour[cut], corners, order)
            plain = self._array(self.depth[cut], corners, order)
            self.held += [shaded, plain, corners, order]
            picture, mask = self._texture(batch.material.texture), batch.material.mask
            mask = self._texture(mask) if mask else None
            look = _LOOKS[batch.material.look]
            self.draws.append(_Draw(shaded, plain, picture, mask, look, starts, low, high))

    def draw(
        self, camera: Camera, light: Light
    ) -> tuple[Float32[Array, "h w 3"], Float32[Array, "h w"]]:
        """Linear colours, and z in metres at the pixels' centres; +inf in the sky."""
        pose = camera.cam_from_world.double().numpy()
        clip = lens_clip(
            camera.px_from_cam.double().numpy(), camera.width, camera.height, NEAR, FAR
        )
        fine, plain = self._targets(camera.width, camera.height)
        self._draw_shadows(light)
        self.gl.enable_only(self.gl.DEPTH_TEST)
        plain.use()
        plain.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        self._draw_all(self.depth, pose, clip)
        fine.use()
        fine.clear(0.0, 0.0, 0.0, 1.0, depth=1.0)
        self._set_light(light, pose)
        self._draw_all(self.colour, pose, clip)
        self.gl.depth_func = "<="
        self._write(self.sky, "ray_from_clip", _rays(pose, clip))
        self.backdrop.render(self.gl.TRIANGLE_STRIP)
        return self._read(fine, plain, camera.width, camera.height)

    def _draw_shadows(self, light: Light) -> None:
        self.shadow_target.use()
        self.shadow_target.clear(depth=1.0)
        self.gl.enable_only(self.gl.DEPTH_TEST)
        self._draw_all(self.depth, np.eye(4), light.shadow_from_world)

    def _draw_all(self, programs: list[Any], pose: Array, clip: Array) -> None:
        for program in programs:
            self._write(program, "cam_from_world", pose)
            self._write(program, "clip_from_cam", clip)
            self._put(program, picture=0, mask=1)
        for draw in self.draws:
            runs = _runs(_in_sight(draw.low, draw.high, clip @ pose), draw.starts)
            if not runs:
                continue
            draw.picture.use(0)
            (draw.mask or draw.picture).use(1)
            array = draw.shaded if programs is self.colour else draw.plain
            self._put(array.program, look=draw.look, masked=int(draw.mask is not None))
            for first, count in runs:
                array.render(vertices=count, first=first)

    def _set_light(self, light: Light, pose: Array) -> None:
        self.shadow.use(2)
        lamps = [*light.lamps, *[(np.zeros(3), np.zeros(3))] * shaders.LAMPS][: shaders.LAMPS]
        low, high = light.walls or (np.zeros(3), np.zeros(3))
        for program in (*self.colour, self.sky):
            self._write(program, "shadow_from_world", light.shadow_from_world)
            self._put(
                program,
                eye=tuple(-pose[:3, :3].T @ pose[:3, 3]),
                above=tuple(light.above),
                below=tuple(light.below),
                wall_low=tuple(low),
                wall_high=tuple(high),
                indoors=int(light.walls is not None),
                haze=light.haze,
                lamp=[tuple(place) for place, _ in lamps],
                lamp_colour=[tuple(colour) for _, colour in lamps],
                shadow=2,
                main_light=tuple(light.main),
                main_colour=tuple(light.main_colour),
                sky_top=tuple(light.sky_top),
                sky_low=tuple(light.sky_low),
                clouds=light.clouds,
            )

    def _read(self, fine: Any, plain: Any, width: int, height: int) -> tuple[Array, Array]:
        raw = np.frombuffer(fine.color_attachments[0].read(), dtype=np.float16)
        samples = raw.reshape(height, FINE, width, FINE, 4)[..., :3].astype(np.float32)
        depth = np.frombuffer(plain.color_attachments[0].read(), dtype=np.float32)
        depth = depth.reshape(height, width)
        return samples.mean((1, 3)), np.where(depth > 0, depth, np.float32(np.inf))

    def _targets(self, width: int, height: int) -> tuple[Any, Any]:
        """Frame buffers for the colours and for the depth of images of a shape."""
        if (width, height) not in self.targets:
            made = []
            for factor, channels, kind in ((FINE, 4, "f2"), (1, 1, "f4")):
                size = (width * factor, height * factor)
                colour = self.gl.texture(size, channels, dtype=kind)
                made.append(self.gl.framebuffer([colour], self.gl.depth_renderbuffer(size)))
            self.targets[width, height] = (made[0], made[1])
        return self.targets[width, height]

    def _array(self, program: Any, corners: Any, order: Any) -> Any:
        """Vertex array that skips the attributes which a program does not use."""
        kinds = {"place": "3f", "normal": "3f", "colour": "3f", "uv": "2f"}
        pads = {"place": "12x", "normal": "12x", "colour": "12x", "uv": "8x"}
        used = [name for name in kinds if name in program]
        layout = " ".join(kinds[name] if name in used else pads[name] for name in kinds)
        return self.gl.vertex_array(program, [(corners, layout, *used)], order)

    def _texture(self, picture: Picture | None) -> Any:
        if picture is None:
            return self.white
        if picture not in self.textures:
            self.textures[picture] = self._texture_of(read_picture(picture))
        return self.textures[picture]

    def _texture_of(self, image: Image.Image) -> Any:
        texture = self.gl.texture(image.size, 4, image.tobytes())
        texture.build_mipmaps()
        texture.filter = (self.gl.LINEAR_MIPMAP_LINEAR, self.gl.LINEAR)
        return texture

    @staticmethod
    def _write(program: Any, name: str, matrix: Array) -> None:
        if name in program:  # the compiler drops what a program does not need
            program[name].write(np.ascontiguousarray(matrix.T, dtype=np.float32).tobytes())

    @staticmethod
    def _put(program: Any, **values: Any) -> None:
        for name, value in values.items():
            if name in program:
                program[name].value = value


def read_picture(picture: Picture) -> Image.Image:
    """A texture as RGBA, no larger than TEXTURE_SIDE.

    Raises:
        SceneError: The file is missing or no image.
    """
    try:
        if picture.member:
            with zipfile.ZipFile(picture.path) as archive:
                image = Image.open(io.BytesIO(archive.read(picture.member)))
        else:
            image = Image.open(picture.path)
        image = image.convert("RGBA")
    except (OSError, KeyError, zipfile.BadZipFile, ValueError) as error:
        raise SceneError(
            f"cannot read the texture {picture.path} {picture.member}".rstrip(),
            why=str(error),
            fix="install the package that holds it again",
        ) from error
    image.thumbnail((TEXTURE_SIDE, TEXTURE_SIDE))
    return image


def _by_cell(batch: Batch) -> tuple[Array, Array, Array, Array]:
    """Triangles sorted by the cell of a coarse grid: so that what is out of sight can be skipped.

    Returns:
        The triangles, where each cell starts in the flat index buffer (and the end), and the
        lower and upper corners of the boxes around cells.
    """
    points = batch.corners[batch.triangles, :3]  # (m, 3, 3)
    cells = np.floor(points.mean(1) / CELL).astype(np.int64)
    _, names = np.unique(cells, axis=0, return_inverse=True)
    order = np.argsort(names.reshape(-1), kind="stable")
    starts = np.flatnonzero(np.diff(names.reshape(-1)[order], prepend=-1))
    low = np.minimum.reduceat(points.min(1)[order], starts)
    high = np.maximum.reduceat(points.max(1)[order], starts)
    return batch.triangles[order], 3 * np.append(starts, len(order)), low, high


def _in_sight(low: Array, high: Array, clip: Array) -> Array:
    """Which boxes are not wholly beyond one side of the clip volume."""
    choice = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], dtype=bool)
    corners = np.where(choice, high[:, None], low[:, None])  # (n, 8, 3)
    x = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=2) @ clip.T
    w = x[..., 3:]
    outside = np.all(x[..., :3] > w, axis=1) | np.all(x[..., :3] < -w, axis=1)  # (n, 3)
    return ~np.any(outside, axis=1)


def _runs(wanted: Array, starts: Array) -> list[tuple[int, int]]:
    """Neighbouring wanted cells as (first, count) in the index buffer."""
    edges = np.flatnonzero(np.diff(wanted.astype(np.int8), prepend=0, append=0))
    return [(int(starts[a]), int(starts[b] - starts[a])) for a, b in edges.reshape(-1, 2)]


def _rays(pose: Array, clip: Array) -> Array:
    """World directions (of z = 1 in the camera frame) from clip coordinates (x, y, 1, 0)."""
    lens = np.array([clip[0, :3], clip[1, :3], [0, 0, 1]])  # (x, y, 1) from camera directions
    rays = np.zeros((4, 4))
    rays[:3, :3] = pose[:3, :3].T @ np.linalg.inv(lens)
    return rays
