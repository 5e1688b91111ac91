"""How one visitor moves: the browser moves first, and is put right where it may not go.

viser's browser side walks on its own, 2 m/s, through everything. Each place it reports is checked;
where the visitor may not be, it is told another. Reports that were on their way meanwhile must not
be taken for moves from that place: every correction sets the camera's far plane, far behind all
that is drawn, to another distance, and only reports that carry it back are answers to it.

The lens is told to the browser and never asked of it: reports on their way carry the one before.

What is moved is the point that the view turns around, just ahead of the eyes: turning the head
moves the eyes a little, but nobody walks by it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import viser
import viser.transforms

from renderers import Camera
from spatial_memory.walking import Body, Point, Terrain
from viewer.awake import place_of, same_place
from viewer.cameras import camera_of, pose_of, vertical_fov
from viewer.navigation import BROWSER_SPEED, FAR_PLANE, LOOK_AHEAD, ORBIT_DISTANCE, Pose

Mode = Literal["walk", "fly", "orbit"]
MODES: tuple[Mode, ...] = ("walk", "fly", "orbit")
LOST = 5.0
"""Seconds after which a correction that nobody answered is made again, and after which a browser
that looks from afar is believed to be where it says."""
UPRIGHT = -0.9
"""Largest y of a visitor's up (y points down). A browser that comes back to a server that was
started anew reports in other axes first, where up is elsewhere."""
MOVED = 2e-3
"""Corrections smaller than this are not worth sending, in metres."""
ASIDE = np.array([0.0, 0.02, 0.0])
"""So far apart, viser takes two places for different, in metres."""
TAGS = 1000
"""Far planes that mark corrections: one metre apart, used in turn."""


class Walker:
    """Keeps one visitor on the ground and out of walls.

    Args:
        client: The visitor.
        terrain: Gives the ground and walls as they are now.
        body: Gives who walks, as for :class:`spatial_memory.walking.Body`.
        home: Gives where the photograph was taken: visitors begin there.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        terrain: Callable[[], Terrain],
        body: Callable[[], Body],
        home: Callable[[], Camera],
    ) -> None:
        self._client, self._terrain, self._body, self._home = client, terrain, body, home
        self._lock = threading.RLock()
        self._mode: Mode = "walk"
        self.speed = BROWSER_SPEED
        """Metres per second."""
        self.here = False
        """Whether the visitor has arrived; what a browser reports before is its default pose."""
        self.moved_at = time.monotonic()
        """When the visitor moved or turned last, on the clock of ``time.monotonic``."""
        self._head, self._place = np.zeros(3), np.full(8, np.inf)
        self._tag, self._placed, self._asked = FAR_PLANE, time.monotonic(), np.zeros(3)
        self._owed: np.ndarray | None = None
        self._wanted: Pose | None = None
        self._told_again = -math.inf
        self._lens: float | None = None

    @property
    def mode(self) -> Mode:
        """How the visitor moves."""
        return self._mode

    @property
    def camera(self) -> Camera:
        """What the visitor sees, or is about to see, on the pixel grid of the window."""
        return camera_of(self._client.camera, self.lens, self._wanted)

    @property
    def lens(self) -> float:
        """Vertical field of view, in radians: the photograph's, until another is told."""
        return vertical_fov(self._home()) if self._lens is None else self._lens

    def report(self, camera: viser.CameraHandle) -> bool:
        """The browser says where the visitor is. Returns whether the visitor has arrived."""
        head = np.array(camera.look_at, np.float64)
        if not camera.far >= FAR_PLANE - 0.5 or not np.isfinite([*head, *camera.position]).all():
            return False
        with self._lock:
            return self._report(camera, head)

    def _report(self, camera: viser.CameraHandle, head: np.ndarray) -> bool:
        now, place = time.monotonic(), place_of(camera)
        if not same_place(place, self._place):
            self.moved_at, self._place = now, place
        heard = abs(camera.far - self._tag) <= 0.25
        if not self.here:
            if self._wanted is not None and not heard:
                if now - self._told_again > LOST:  # the page's own start may have undone it
                    self._told_again = now
                    self.go_to(self._wanted)
                return False
            # Until viser's page has put itself to its start, it reports poses that look from afar.
            settled = _in_one_place(camera) or now - self._placed > LOST
            self.here = bool(settled and camera.up_direction[1] < UPRIGHT)
            if self.here:
                self._begin(head, camera.far)
            return self.here
        if not heard:
            if self._owed is not None:
                self._owed = head - self._asked
            if now - self._placed > LOST:
                self._put_right(camera, head)
            return True
        if self._mode == "orbit" or _in_one_place(camera):
            self._wanted = None
        if self._at_home(camera):  # a page that comes back puts itself there: nobody walked
            self._head, self._owed = head, None
            return True
        step = head - self._head
        if self._owed is not None:
            step, self._owed = step + self._owed, None
        if self._mode == "orbit":
            self._head = head
            return True
        goal = self._head + (self.speed / BROWSER_SPEED) * step
        if self._mode == "walk":
            goal = np.array(self._terrain().walk(_point(self._head), _point(goal), self._body()))
        self._head = goal
        if np.abs(goal - head).max() > MOVED:
            self._put_right(camera, head)
        return True

    def go_to(self, pose: Pose) -> None:
        """Bring the visitor somewhere, without walking there."""
        camera = self._client.camera
        with self._lock, self._client.atomic():
            self._next_tag()
            self._reach()
            camera.up_direction = pose.up
            self._tell(pose.position, pose.look_at)
            camera.fov = self._lens = pose.fov
            self._owed, self._wanted = None, pose
            self._head = np.array(pose.look_at, np.float64)
            self.moved_at = time.monotonic()

    def go_home(self) -> None:
        """Bring the visitor to where the photograph was taken, on foot unless flying."""
        if self._mode == "orbit":
            self._mode = "walk"
        self.go_to(pose_of(self._home()))

    def step(self, forward: float, right: float, turn_degrees: float) -> None:
        """Go a step and turn, as far as the world allows: for visitors without keys."""
        before = self.camera
        flat = before.moved(pitch_degrees=-_pitch(before))
        goal = flat.moved(forward=forward, right=right).center.double().numpy()
        start = before.center.double().numpy()
        if self._mode == "walk":
            goal = np.array(self._terrain().walk(_point(start), _point(goal), self._body()))
        turned = flat.moved(yaw_degrees=turn_degrees).moved(pitch_degrees=_pitch(before))
        pose = turned.cam_from_world.double().clone()
        pose[:3, 3] = -pose[:3, :3] @ torch.from_numpy(goal)
        self.go_to(replace(pose_of(turned.posed(pose.float())), fov=self.lens))

    def set_mode(self, mode: Mode) -> None:
        """Move otherwise from now on."""
        if mode == self._mode:
            return
        before, self._mode = self._mode, mode
        camera = self.camera
        pose = pose_of(camera, ORBIT_DISTANCE if mode == "orbit" else LOOK_AHEAD)
        if "orbit" in (before, mode):
            self.go_to(pose)
        if mode == "walk":
            self.step(0.0, 0.0, 0.0)  # down to the ground

    def _put_right(self, camera: viser.CameraHandle, head: np.ndarray) -> None:
        """Tell the browser, which has the visitor at ``head``, where the visitor is."""
        self._asked, self._owed = head, np.zeros(3)
        ahead = np.linalg.norm(head - camera.position) if self._mode == "orbit" else LOOK_AHEAD
        forward = viser.transforms.SO3(np.asarray(camera.wxyz)).as_matrix()[:, 2]
        with self._client.atomic():
            self._next_tag()
            self._tell(self._head - ahead * forward, self._head)

    def _tell(self, position: np.ndarray, look_at: np.ndarray) -> None:
        """Send both, whatever viser believes: it sends no place where the browser was last.

        A report can have the head where it was told to be, and the eyes where they were drawn.
        """
        camera = self._client.camera
        camera.position = position + ASIDE
        camera.position = position
        camera.look_at = look_at

    def _at_home(self, camera: viser.CameraHandle) -> bool:
        home = pose_of(self._home())
        off = np.abs([camera.position - home.position, camera.look_at - home.look_at])
        return bool(off.max() < MOVED)

    def _begin(self, head: np.ndarray, far: float) -> None:
        self._head, self._tag, self._owed, self._wanted = head, far, None, None
        self._reach()

    def _reach(self) -> None:
        """Keep the wheel from backing out of the head, but for orbits."""
        camera = self._client.camera
        if self._mode == "orbit":
            camera.max_orbit_distance, camera.min_orbit_distance = 50.0, LOOK_AHEAD
        else:
            camera.min_orbit_distance = camera.max_orbit_distance = LOOK_AHEAD

    def _next_tag(self) -> None:
        self._tag = FAR_PLANE + (self._tag - FAR_PLANE + 1.0) % TAGS
        self._placed = time.monotonic()
        self._client.camera.far = self._tag


def _in_one_place(camera: viser.CameraHandle) -> bool:
    """Whether the eyes have come to the head: they are where they were drawn last."""
    return bool(np.linalg.norm(camera.look_at - camera.position) < 2.0 * LOOK_AHEAD)


def _point(place: np.ndarray) -> Point:
    return float(place[0]), float(place[1]), float(place[2])


def _pitch(camera: Camera) -> float:
    """How far a camera looks up, in degrees."""
    ahead = camera.world_from_cam[:3, 2].double()
    return float(torch.rad2deg(torch.asin(-ahead[1].clamp(-1.0, 1.0))))
