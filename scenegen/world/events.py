"""What the loop says while it works: one stream that every front end reads."""

from __future__ import annotations

from dataclasses import dataclass

from renderers import Camera, Splats


@dataclass(frozen=True, eq=False)
class Loaded:
    """The photograph was read and its geometry estimated."""

    name: str
    """File name of the photograph."""
    camera: Camera
    """The photograph's own camera: the world's origin."""
    fov_source: str
    """Where the field of view comes from, in plain words."""
    depth: str
    """Name of the depth backend."""
    outpaint: str
    """Name of the outpainting backend."""

    def __str__(self) -> str:
        size = f"{self.camera.width} x {self.camera.height}"
        return (
            f"{self.name}: {size} pixels, {self.camera.fov_degrees:.0f} degrees wide "
            f"({self.fov_source}); depth by {self.depth}, outpainting by {self.outpaint}"
        )


@dataclass(frozen=True)
class Scaled:
    """The geometry of the photograph is in metres."""

    source: str
    """Where the metres come from, in plain words."""

    def __str__(self) -> str:
        return f"scale: {self.source}"


@dataclass(frozen=True, eq=False)
class Planned:
    """The cameras that will be visited."""

    cameras: tuple[Camera, ...]

    def __str__(self) -> str:
        return f"{len(self.cameras)} views to visit"


@dataclass(frozen=True)
class Retrieved:
    """Past views chosen as context for the next outpainting, best first."""

    view_ids: tuple[int, ...]
    coverage: float
    """Share of the target's pixels that the chosen views have seen, 0 to 1."""

    def __str__(self) -> str:
        views = ", ".join(map(str, self.view_ids)) or "none"
        return f"remembered views: {views} (they cover {self.coverage:.0%})"


@dataclass(frozen=True, eq=False)
class Committed:
    """A step is on disk for good."""

    step: int
    """Number of the step; step 0 is the photograph."""
    splats: Splats
    """What the step added to the world; may be empty."""
    camera: Camera
    """The view of the step."""
    hole_share: float
    """Share of the view's pixels that nothing explained before, 0 to 1."""
    seconds: float
    """Wall time of the step."""

    def __str__(self) -> str:
        return (
            f"step {self.step}: {self.hole_share:.0%} of the view was unknown, "
            f"{len(self.splats):,} splats added, {self.seconds:.1f} s"
        )


@dataclass(frozen=True, eq=False)
class Skipped:
    """A planned view added nothing: what it shows is known already, or nobody may invent it."""

    camera: Camera
    hole_share: float
    """Share of the view's pixels that nothing explains, 0 to 1."""
    honest: bool = False
    """Whether the rest stays unknown because nothing may be invented."""

    def __str__(self) -> str:
        if self.honest:
            return f"view skipped: {self.hole_share:.1%} of it was never seen and stays unknown"
        return f"view skipped: only {self.hole_share:.1%} of it is unknown"


@dataclass(frozen=True)
class Erased:
    """What :meth:`scenegen.World.erase` took away."""

    splats: int
    surfels: int


@dataclass(frozen=True)
class Finished:
    """The work asked for is done."""

    steps: int
    """Steps in the world."""
    splats: int
    """Splats in the world."""
    seconds: float
    """Wall time of the whole run."""

    def __str__(self) -> str:
        return f"done: {self.steps} steps, {self.splats:,} splats, {self.seconds:.0f} s"


Event = Loaded | Scaled | Planned | Retrieved | Committed | Skipped | Finished
