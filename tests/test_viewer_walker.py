"""How a visitor is kept on the ground and out of walls, with a browser that answers late."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import viser
from test_walking import FLOOR, WALL, sheet, terrain
from viewer_parts import CAMERA

from spatial_memory.walking import Body, Terrain
from viewer import navigation, walker
from viewer.cameras import pose_of, vertical_fov
from viewer.navigation import FAR_PLANE, LOOK_AHEAD
from viewer.walker import Walker

PLACES = ("position", "look_at", "up_direction", "fov", "far")


class FakeBrowser:
    """Walks on its own as viser's browser side does, and hears of corrections ``late`` reports on.

    It is also the camera handle that the server sees: assignments are sent to it.
    """

    def __init__(self, late: int = 0) -> None:
        self.place: dict[str, Any] = {
            "position": np.zeros(3), "look_at": np.array([0.0, 0.0, LOOK_AHEAD]),
            "up_direction": np.array([0.0, -1.0, 0.0]), "fov": 1.0, "far": FAR_PLANE,
        }  # fmt: skip
        self.image_width, self.image_height = 64, 48
        self.max_orbit_distance = self.min_orbit_distance = LOOK_AHEAD
        self.wxyz = (1.0, 0.0, 0.0, 0.0)
        self._late = late
        self._underway: deque[list[tuple[str, Any]]] = deque([[] for _ in range(late)])
        self._sent: list[tuple[str, Any]] = []
        self._known = dict(self.place)
        self.corrections = 0

    __class__ = property(lambda self: viser.CameraHandle)  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        if name in PLACES:
            return self._known[name]
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in PLACES:
            object.__setattr__(self, name, value)
            return
        self.corrections += name == "far"
        if name in ("position", "look_at") and np.allclose(value, self._known[name]):
            return  # viser sends nothing that it takes for known
        if name == "position":  # viser takes the point looked at along
            self._known["look_at"] = self._known["look_at"] + (value - self._known["position"])
            self._sent.append(("look_at", self._known["look_at"]))
        self._known[name] = value
        self._sent.append((name, value))

    def walk(self, person: Walker, step: tuple[float, float, float], times: int = 1) -> None:
        """Move, report, and hear what was sent some reports ago."""
        for _ in range(times):
            for name in ("position", "look_at"):
                self.place[name] = self.place[name] + np.array(step)
            self._known = dict(self.place)
            person.report(self)
            self._underway.append(self._sent)
            self._sent = []
            self.place.update(self._underway.popleft())


def client_of(browser: FakeBrowser) -> Any:
    client = MagicMock(spec=viser.ClientHandle)
    client.camera, client.atomic = browser, contextlib.nullcontext
    return client


def person_on(
    ground: Terrain,
    late: int = 0,
    body: Body = Body(),  # noqa: B008
) -> tuple[Walker, FakeBrowser]:
    browser = FakeBrowser(late)
    person = Walker(client_of(browser), lambda: ground, lambda: body, lambda: CAMERA)
    browser.walk(person, (0, 0, 0))
    return person, browser


@pytest.mark.parametrize("late", [0, 1, 3])
def test_wall_stops_the_walk_however_late_the_browser_hears(late: int) -> None:
    """25 steps of 0.1 m lead half a metre through the wall; it ends a radius before it."""
    person, browser = person_on(terrain(FLOOR, WALL), late)
    browser.walk(person, (0, 0, 0.1), 25)
    browser.walk(person, (0, 0, 0), late + 1)
    assert browser.place["look_at"][2] == pytest.approx(1.75, abs=0.03)
    assert browser.place["look_at"][0] == pytest.approx(0, abs=0.05)
    assert browser.place["position"][1] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("late", [0, 2])
@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_speed_is_kept_however_late_the_browser_hears(late: int, speed: float) -> None:
    """The browser asks for 1 m at 2 m/s: that is half a metre per m/s, none of it lost."""
    person, browser = person_on(terrain(FLOOR), late)
    person.speed = speed
    browser.walk(person, (0, 0, 0.05), 20)
    browser.walk(person, (0, 0, 0), 2 * late + 2)
    assert browser.place["position"][2] == pytest.approx(0.5 * speed, abs=0.06)


def test_who_was_told_a_place_arrives_with_the_answer() -> None:
    """The browser hears three reports later: what it says before is no answer to the step."""
    browser = FakeBrowser(late=3)
    person = Walker(client_of(browser), lambda: terrain(FLOOR), Body, lambda: CAMERA)
    person.go_home()
    for _ in range(4):
        browser.walk(person, (0, 0, 0))
        assert not person.here
    browser.walk(person, (0, 0, 0))
    assert person.here
    person.step(0.3, 0.0, 0.0)
    for _ in range(8):
        assert float(person.camera.center[2]) == pytest.approx(0.3, abs=0.01)
        browser.walk(person, (0, 0, 0))


def test_who_was_told_a_place_before_the_page_began_is_told_again() -> None:
    """The page's own start sets the far plane anew: the first answer is lost."""
    browser = FakeBrowser()
    person = Walker(client_of(browser), lambda: terrain(FLOOR), Body, lambda: CAMERA)
    person.go_to(pose_of(CAMERA.moved(forward=0.5)))
    browser._sent.clear()
    browser.walk(person, (0, 0, 0))
    assert not person.here and person._tag == FAR_PLANE + 2
    browser.walk(person, (0, 0, 0))
    assert person.here
    assert browser.place["position"][2] == pytest.approx(0.5, abs=0.01)


def test_lens_is_what_was_told_whatever_a_report_on_its_way_says() -> None:
    """The browser comes with its own lens and hears three reports later of the photograph's."""
    person, browser = person_on(terrain(FLOOR), late=3)
    for _ in range(6):
        assert person.lens == pytest.approx(vertical_fov(CAMERA))
        assert vertical_fov(person.camera) == pytest.approx(vertical_fov(CAMERA), abs=1e-6)
        browser.walk(person, (0, 0, 0))
        person.go_home()
    person.go_to(replace(pose_of(CAMERA), fov=0.7))
    browser.walk(person, (0, 0, 0))
    person.step(0.2, 0.0, 10.0)
    browser.walk(person, (0, 0, 0), 4)
    assert vertical_fov(person.camera) == pytest.approx(0.7, abs=1e-6)
    assert browser.place["fov"] == 0.7


@pytest.mark.parametrize("eyes", [-3.0, 0.0, 1.7, 4.0])
def test_correction_turns_nobody_though_the_eyes_lag_behind_the_head(eyes: float) -> None:
    """A report between two pictures has the eyes where they were drawn last: at z = ``eyes``. The
    head is a metre too far; it comes back to the wall with the eyes behind it, looking at it."""
    person, browser = person_on(terrain(FLOOR, WALL))
    browser.place["position"] = np.array([0.0, 0.0, eyes])
    browser.place["look_at"] = np.array([0.0, 0.0, 2.75])
    browser.walk(person, (0, 0, 0))
    assert browser.place["look_at"][2] == pytest.approx(1.75, abs=0.03)
    gaze = browser.place["look_at"] - browser.place["position"]
    np.testing.assert_allclose(gaze, [0, 0, LOOK_AHEAD], atol=1e-6)


def test_free_way_needs_no_correction() -> None:
    person, browser = person_on(terrain(FLOOR))
    browser.walk(person, (0, 0, 0.1), 10)
    assert browser.corrections == 0
    assert browser.place["position"][2] == pytest.approx(1.0)


def test_feet_follow_the_ground_and_flying_does_not() -> None:
    up = np.array([0, -5, -1]) / np.sqrt(26)
    ramp = terrain(FLOOR, sheet((-1, 1.6, 0), (2, 0, 0), (0, -0.6, 3), up))
    person, browser = person_on(ramp)
    browser.walk(person, (0, 0, 0.1), 20)
    assert browser.place["position"][1] == pytest.approx(-0.4, abs=0.04)
    person.set_mode("fly")
    browser.walk(person, (0, -0.1, 0), 10)
    assert browser.place["position"][1] == pytest.approx(-1.4, abs=0.04)
    person.set_mode("walk")
    browser.walk(person, (0, 0, 0))
    assert browser.place["position"][1] == pytest.approx(-0.4, abs=0.05)


def test_flying_goes_through_walls() -> None:
    person, browser = person_on(terrain(FLOOR, WALL))
    person.set_mode("fly")
    browser.walk(person, (0, 0, 0.1), 30)
    assert browser.place["position"][2] == pytest.approx(3.0)


def test_turning_the_head_is_not_walking() -> None:
    """The browser turns the eyes about a point ahead: the eyes move, the visitor does not."""
    person, browser = person_on(terrain(FLOOR, WALL))
    browser.place["position"] = np.array([LOOK_AHEAD, 0.0, LOOK_AHEAD])
    browser.walk(person, (0, 0, 0))
    assert browser.corrections == 0


def test_default_pose_of_a_browser_is_not_believed() -> None:
    strange = FakeBrowser()
    strange.place["far"] = 1000.0  # viser's own
    person = Walker(client_of(strange), lambda: terrain(FLOOR), Body, lambda: CAMERA)
    strange.walk(person, (3, 3, 3))
    assert not person.here
    strange.place["far"] = FAR_PLANE + 17.0  # a tab that comes back after the server was gone
    strange.walk(person, (0, 0, 0))
    assert person.here
    strange._known["position"] = np.array([np.nan, 0, 0])
    assert not person.report(strange)


def test_places_in_other_axes_are_not_believed() -> None:
    """A browser that comes back reports in other axes first: no walk leads from there to here."""
    browser = FakeBrowser()
    person = Walker(client_of(browser), lambda: terrain(FLOOR, WALL), Body, lambda: CAMERA)
    browser.place["up_direction"] = np.array([0.0, 0.0, 1.0])
    browser.walk(person, (1.0, -1.4, 5.0))
    assert not person.here
    browser.place["up_direction"] = np.array([0.0, -1.0, 0.0])
    browser.walk(person, (0, 1.4, 0))
    browser.walk(person, (0, 0, 0.1))
    assert person.here
    assert browser.corrections == 0
    assert browser.place["position"][2] == pytest.approx(5.1)


def test_poses_from_afar_are_not_believed_until_the_page_is_put_to_its_start() -> None:
    """The page has our far plane and our axes before it stands where it shall: the eyes last."""
    browser = FakeBrowser()
    person = Walker(client_of(browser), lambda: terrain(FLOOR), Body, lambda: CAMERA)
    browser.place.update(position=np.array([-5.0, 0.0, 0.0]), look_at=np.zeros(3))
    browser.walk(person, (0, 0, 0))
    browser.place.update(position=np.array([3.0, -3.0, 3.0]), look_at=np.array([0, 0, LOOK_AHEAD]))
    browser.walk(person, (0, 0, 0))
    assert not person.here
    browser.place.update(position=np.zeros(3))
    browser.walk(person, (0, 0, 0))
    assert person.here
    person.step(0.5, 0.0, 0.0)
    np.testing.assert_allclose(browser.position, [0, 0, 0.5], atol=1e-6)


def test_hand_made_link_that_looks_from_afar_is_believed_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    browser = FakeBrowser()
    person = Walker(client_of(browser), lambda: terrain(FLOOR), Body, lambda: CAMERA)
    browser.place["look_at"] = np.array([0.0, 0.0, 3.0])
    browser.walk(person, (0, 0, 0))
    assert not person.here
    later = walker.time.monotonic() + walker.LOST + 1
    monkeypatch.setattr(walker.time, "monotonic", lambda: later)
    browser.walk(person, (0, 0, 0))
    assert person.here


def test_page_that_puts_itself_to_the_start_is_not_stopped_by_a_wall() -> None:
    """A tab that comes back stands behind the wall for a moment; viser then takes it home."""
    browser = FakeBrowser()
    person = Walker(client_of(browser), lambda: terrain(FLOOR, WALL), Body, lambda: CAMERA)
    browser.walk(person, (0, 0, 4.0))
    assert person.here
    browser.walk(person, (0, 0, -4.0))
    browser.walk(person, (0, 0, 0))
    assert browser.corrections == 0
    assert browser.place["look_at"][2] == pytest.approx(LOOK_AHEAD)


def test_jump_by_the_program_is_not_walked() -> None:
    person, browser = person_on(terrain(FLOOR, WALL), late=2)
    person.go_to(pose_of(CAMERA.moved(forward=4.0)))
    browser.walk(person, (0, 0, 0), 4)
    assert browser.place["position"][2] == pytest.approx(4.0)
    browser.walk(person, (0, 0, 0.1), 5)
    assert browser.place["position"][2] == pytest.approx(4.5, abs=0.01)


def test_correction_that_nobody_answers_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser so slow that it walks on behind the wall before it hears: it is brought back."""
    person, browser = person_on(terrain(FLOOR, WALL), late=1000)
    browser.walk(person, (0, 0, 0.1), 40)
    assert browser.place["look_at"][2] > 3
    sent = browser.corrections
    later = walker.time.monotonic() + walker.LOST + 1
    monkeypatch.setattr(walker.time, "monotonic", lambda: later)
    browser.walk(person, (0, 0, 0))
    assert browser.corrections == sent + 1
    for late in browser._underway:
        browser.place.update(late)
    browser._underway.clear()
    browser._underway.append([])
    browser.walk(person, (0, 0, 0))
    assert browser.place["look_at"][2] == pytest.approx(1.75, abs=0.03)


def test_steps_by_buttons_are_walked_and_turned() -> None:
    person, browser = person_on(terrain(FLOOR, WALL))
    for _ in range(12):
        person.step(0.25, 0.0, 0.0)
        browser.walk(person, (0, 0, 0))
    assert browser.place["position"][2] == pytest.approx(1.75, abs=0.05)
    person.step(0.0, 0.0, 90.0)
    person.step(0.0, 0.0, 90.0)  # before the browser has heard of the first
    ahead = browser.look_at - browser.position
    np.testing.assert_allclose(ahead, [0, 0, -LOOK_AHEAD], atol=1e-6)


def test_step_is_taken_from_where_the_head_is_while_the_eyes_lag_behind() -> None:
    """A report that has the head where it was told to be, and the eyes where they were drawn."""
    person, browser = person_on(terrain(FLOOR))
    person.step(0.5, 0.0, 0.0)
    browser.place.update(position=np.zeros(3), look_at=np.array([0.0, 0.0, 0.5 + LOOK_AHEAD]))
    browser.place["far"] = browser.far
    browser._sent.clear()
    browser.walk(person, (0, 0, 0))
    assert float(person.camera.center[2]) == pytest.approx(0.5)
    person.step(0.5, 0.0, 0.0)
    assert browser.position[2] == pytest.approx(1.0)


def test_orbit_turns_around_what_is_ahead() -> None:
    person, browser = person_on(terrain(FLOOR))
    person.set_mode("orbit")
    ahead = np.linalg.norm(browser.look_at - browser.position)
    assert ahead == pytest.approx(navigation.ORBIT_DISTANCE)
    assert browser.max_orbit_distance > ahead
    person.set_mode("walk")
    assert np.linalg.norm(browser.look_at - browser.position) == pytest.approx(LOOK_AHEAD)


def test_link_to_a_view() -> None:
    query = navigation.share_query(pose_of(CAMERA.moved(right=1.0, yaw_degrees=90.0)))
    assert query == (
        "?initialCameraPosition=1.0000,0.0000,0.0000"
        f"&initialCameraLookAt={1 + LOOK_AHEAD:.4f},0.0000,0.0000"
        "&initialCameraUp=0.0000,-1.0000,0.0000"
    )
