"""The viewer without a browser: where it listens, how a growing world arrives."""

from __future__ import annotations

import logging
import math
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
import torch
import viser
from viewer_parts import CAMERA, dots, nodes, onlooker, world
from viser import _messages
from websockets import Headers, InvalidStatus, Subprotocol
from websockets.sync.client import connect

from renderers import Camera, SceneError, Splats
from scenegen.image.picture import Picture
from scenegen.world.events import Committed, Finished, Loaded, Planned, Retrieved, Skipped
from viewer import ViewerApp, awake, cameras, navigation, view_photo, view_world
from viewer.budget import Pace
from viewer.page import BACKGROUND
from viewer.server import address_of, refusal
from viewer.telling import guarded, plain


@pytest.fixture
def app() -> Iterator[ViewerApp]:
    with ViewerApp(port=0) as made:
        onlooker(made)
        yield made


# Where it listens ---------------------------------------------------------------------------

LISTENING = "0A"


@pytest.mark.skipif(not Path("/proc/net/tcp").is_file(), reason="lists sockets as Linux does")
def test_listens_on_this_machine_only(app: ViewerApp) -> None:
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        if (Path("/proc/net") / table).is_file()
        for line in (Path("/proc/net") / table).read_text().splitlines()[1:]
    ]
    port = f"{app.server.get_port():04X}"
    heard = [line[1] for line in lines if line[1].endswith(f":{port}") and line[3] == LISTENING]
    assert heard == [f"0100007F:{port}"]  # 127.0.0.1, as the kernel writes it
    assert app.url == f"http://127.0.0.1:{app.server.get_port()}"


def test_open_host_warns(caplog: pytest.LogCaptureFixture) -> None:
    with ViewerApp("0.0.0.0", 0) as app:
        assert app.url == f"http://127.0.0.1:{app.server.get_port()}"
    assert "asks for no password" in caplog.text


def test_loopback_does_not_warn(app: ViewerApp, caplog: pytest.LogCaptureFixture) -> None:
    assert "password" not in caplog.text


def test_busy_port_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with ViewerApp(port=port) as app:
            assert app.server.get_port() != port
            assert app.url.endswith(f":{app.server.get_port()}")
            assert f"port {port} is not free\n  why: " in caplog.text
            assert f"fix: using {app.server.get_port()} instead: open {app.url}" in caplog.text


def test_no_port_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        monkeypatch.setattr("viewer.server.PORTS_TRIED", 1)
        with pytest.raises(SceneError, match="no port is free"):
            ViewerApp(port=busy.getsockname()[1])


@pytest.mark.parametrize("host", ["not a host", "198.51.100.7", ""])
def test_host_of_another_machine_is_an_error(host: str) -> None:
    with pytest.raises(SceneError, match="cannot listen on"):
        ViewerApp(host, 0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_impossible_port_is_an_error(port: int) -> None:
    with pytest.raises(SceneError, match="there is no port"):
        ViewerApp(port=port)


def test_addresses_read_right() -> None:
    def server(host: str) -> Any:
        return Mock(
            spec=viser.ViserServer,
            get_host=Mock(return_value=host),
            get_port=Mock(return_value=81),
        )

    assert address_of(server("::1")) == "http://[::1]:81"
    assert address_of(server("::")) == "http://127.0.0.1:81"
    assert address_of(server("box.lan")) == "http://box.lan:81"


def test_nobody_can_open_a_public_tunnel(
    app: ViewerApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tunnel = Mock()
    monkeypatch.setattr("viser._viser.ViserTunnel", tunnel)
    assert app.server.request_share_url() is None
    caplog.clear()
    answered = threading.Event()
    monkeypatch.setattr(
        logging.getLogger("scenegen"), "warning", lambda *_: answered.set(), raising=True
    )
    (handler,) = app.server._websock_server._incoming_handlers[_messages.ShareUrlRequest]
    handler(0, _messages.ShareUrlRequest())  # type: ignore[arg-type]
    assert answered.wait(5)
    assert not tunnel.called


def knock(app: ViewerApp, **headers: str) -> Any:
    """Open a WebSocket as a browser would; the exception is the answer."""
    protocol = [Subprotocol(f"viser-v{viser.__version__}")]
    url = app.url.replace("http", "ws")
    return connect(url, subprotocols=protocol, additional_headers=headers, max_size=None)


def test_own_page_may_open_a_websocket(app: ViewerApp) -> None:
    with knock(app, Origin=app.url) as door:
        assert len(door.recv(timeout=20)) > 0
    with knock(app) as door:  # a program, not a page
        assert len(door.recv(timeout=20)) > 0


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example"]
)
def test_page_from_elsewhere_is_refused(
    app: ViewerApp, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        knock(app, Origin=origin)
    assert "a request was refused" in caplog.text
    assert origin in caplog.text


def test_name_of_another_site_is_refused(app: ViewerApp) -> None:
    """A site whose name is made to mean this machine: the browser says whom it thinks it asks."""
    for path in ("/", "/index.html"):
        request = urllib.request.Request(app.url + path, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=10)
    with urllib.request.urlopen(app.url, timeout=20) as page:
        assert page.status == 200
    assert refusal(Headers(Host="box.lan:80"), "0.0.0.0") is None
    assert refusal(Headers(Host="[::1]:80"), "localhost") is None


def test_closing_twice_and_port_is_free_again(app: ViewerApp) -> None:
    port = app.server.get_port()
    app.close()
    app.close()
    with ViewerApp(port=port) as again:
        assert again.server.get_port() == port


def test_page_shows_a_quiet_dark_background(app: ViewerApp) -> None:
    sent = app.server._websock_server._broadcast_buffer.message_from_id.values()
    assert any(isinstance(message, _messages.BackgroundImageMessage) for message in sent)
    (theme,) = [m for m in sent if isinstance(m, _messages.ThemeConfigurationMessage)]
    assert theme.dark_mode
    assert not theme.show_share_button
    assert max(BACKGROUND) < 48
    assert max(BACKGROUND) - min(BACKGROUND) < 8


# Where the visitor stands -------------------------------------------------------------------


def test_lens_by_hand() -> None:
    """Focal length 24 and 48 rows: 45 degrees up and down; off centre, 36 and 12 rows."""
    lens = torch.tensor([[24.0, 0, 32], [0, 24, 24], [0, 0, 1]])
    assert cameras.vertical_fov(Camera(lens, torch.eye(4), 64, 48)) == pytest.approx(math.pi / 2)
    lens[1, 2] = 36.0
    wanted = math.atan(1.5) + math.atan(0.5)
    assert cameras.vertical_fov(Camera(lens, torch.eye(4), 64, 48)) == pytest.approx(wanted)


def test_visitors_start_where_the_photograph_was_taken(app: ViewerApp) -> None:
    app.show_world(world(3))
    start = app.server.initial_camera
    assert start.position.tolist() == [0, 0, 0]
    np.testing.assert_allclose(start.look_at, [0, 0, navigation.LOOK_AHEAD])
    assert start.up is not None
    np.testing.assert_allclose(start.up, [0, -1, 0])
    half = math.tan(math.radians(30)) * 48 / 64
    assert start.fov == pytest.approx(2 * math.atan(half))


def test_turned_camera_looks_along_its_axis() -> None:
    pose = cameras.pose_of(CAMERA.moved(right=1.0, yaw_degrees=90.0))
    np.testing.assert_allclose(pose.position, [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(pose.look_at, [1 + navigation.LOOK_AHEAD, 0, 0], atol=1e-6)
    np.testing.assert_allclose(pose.up, [0, -1, 0], atol=1e-6)


def visitor(number: int = 0) -> Any:
    client = MagicMock(spec=viser.ClientHandle)
    client.client_id = number
    client.camera = MagicMock(spec=viser.CameraHandle)
    client.camera.client = client
    client.scene = MagicMock()
    client.scene.add_frame.return_value = Mock(spec=viser.FrameHandle, position=(0.0, 0.0, 0.0))
    return client


def test_photograph_frame_is_off_and_can_be_shown(app: ViewerApp) -> None:
    app.show_world(world(3))
    frame = app.server.scene._handle_from_node_name[cameras.FRUSTUM]
    assert isinstance(frame, viser.CameraFrustumHandle)
    assert not frame.visible
    assert frame.aspect == pytest.approx(4 / 3)
    app.panel.show_camera.value = True
    app.panel._toggle_frustum(SimpleNamespace(client=None))
    assert frame.visible


def test_failing_callback_becomes_a_notification(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: Any) -> None:
        raise ValueError("the disk is on fire")

    client = visitor()
    guarded(broken)(SimpleNamespace(client=client))
    assert "the disk is on fire" in client.add_notification.call_args.args
    assert "broken failed" in caplog.text
    guarded(broken)(SimpleNamespace(client=None))


def test_error_for_users_is_told_with_its_fix_and_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(event: Any) -> None:
        raise SceneError("the disk is full", why="no space is left", fix="make some")

    client = visitor()
    guarded(broken)(SimpleNamespace(client=client))
    told = client.add_notification.call_args.args
    assert told == ("The disk is full", "No space is left. Make some.")
    assert caplog.text == ""


def someone(number: int = 0) -> Any:
    """A visitor whose camera answers what it was told last."""
    client = visitor(number)
    client.camera.position, client.camera.look_at = np.zeros(3), np.ones(3)
    client.camera.image_width, client.camera.image_height, client.camera.fov = 64, 48, 1.0
    return client


def test_pictures_keep_coming_while_somebody_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser adds up idle time and leaps at the next key; a nudge every 0.2 s prevents it."""
    clock = 100.0
    monkeypatch.setattr(awake.time, "monotonic", lambda: clock)
    keeper, client = awake.KeepAwake(), someone(7)
    marker = client.scene.add_frame.return_value
    keeper.watch(client, lambda: 1.0, lambda seconds: None)
    assert client.scene.add_frame.call_args.kwargs["visible"] is False
    seen = []
    for _ in range(3):
        assert keeper.pulse(clock + 1.0) == 1
        seen.append(marker.position)
    assert seen == [(0, 0, 1), (0, 0, 0), (0, 0, 1)]
    assert keeper.pulse(clock + awake.RESTING) == 0
    clock += awake.RESTING
    (heard,) = client.camera.on_update.call_args.args
    heard(client.camera)  # an answer from where the visitor is: no move
    assert keeper.pulse(clock + 1.0) == 0
    client.camera.position = np.array([0.0, 0.0, 0.1])
    heard(client.camera)
    assert keeper.pulse(clock + 1.0) == 1
    keeper.forget(client)
    assert keeper.pulse(clock + 1.0) == 0


def test_browser_is_asked_again_only_when_it_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked at 100 s and answered at 102.5 s; a report sent before it was asked is no answer."""
    clock = 100.0
    monkeypatch.setattr(awake.time, "monotonic", lambda: clock)
    keeper, client, took, wanted = awake.KeepAwake(), someone(7), [], [1.0]
    keeper.watch(client, lambda: wanted[0], took.append)
    (heard,) = client.camera.on_update.call_args.args
    keeper.pulse(clock)
    lens = client.camera.fov
    assert 1e-5 < abs(lens - 1.0) < 1e-4  # viser does not send less
    for late in (100.5, 102.0):
        keeper.pulse(late)
        assert client.camera.fov == lens
    client.camera.fov, clock = 1.0, 101.0
    heard(client.camera)
    assert took == []
    client.camera.fov, clock = lens, 102.5
    heard(client.camera)
    heard(client.camera)
    assert took == [2.5]
    for now in (110.0, 113.0, 114.0, 115.0):  # no answer: told once, and not again when it comes
        keeper.pulse(now)
    assert took == [2.5, 4.0]
    client.camera.fov, clock = keeper._visitors[7].sent, 120.0
    heard(client.camera)
    assert took == [2.5, 4.0]
    lens = client.camera.fov
    keeper.pulse(121.0)
    assert client.camera.fov != lens
    client.camera.fov = wanted[0] = 0.7  # another lens: no answer will come
    keeper.pulse(122.0)
    lens = client.camera.fov
    assert lens == pytest.approx(0.7, abs=1e-4)
    client.camera.fov = 1.0  # says a report that was on its way
    keeper.pulse(122.2)
    assert client.camera.fov == lens


def test_hidden_tab_is_not_taken_for_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It draws once a second or not at all; what it says soon after a move counts."""
    clock = 100.0
    monkeypatch.setattr(awake.time, "monotonic", lambda: clock)
    keeper, client, took = awake.KeepAwake(), someone(7), []
    keeper.watch(client, lambda: 1.0, took.append)
    (heard,) = client.camera.on_update.call_args.args
    clock += awake.ARRIVING + 1.0
    keeper.pulse(clock)
    keeper.pulse(clock + 6.0)
    heard(client.camera)
    assert took == []
    client.camera.position = np.array([0.0, 0.0, 0.1])
    heard(client.camera)
    keeper.pulse(clock + 0.5)
    clock += 0.75
    heard(client.camera)
    assert took == [0.25]


def drawn_by(pace: Pace, seconds_per_million: float, pictures: int = 60) -> list[int]:
    """What a browser is given that takes so long per splat, and 20 ms for everything else."""
    given = [pace.given]
    for _ in range(pictures):
        pace.answered(0.02 + seconds_per_million * pace.given / 1e6)
        if pace.given != given[-1]:
            given.append(pace.given)
    return given


def test_fast_browser_is_given_all_and_slow_one_what_it_draws() -> None:
    assert drawn_by(Pace(1_500_000), 0.01) == [100_000, 400_000, 1_500_000]
    assert drawn_by(Pace(1_500_000), 0.08) == [100_000, 400_000, 800_000, 1_500_000]
    assert drawn_by(Pace(6_000), 0.01) == [6_000]
    slow = drawn_by(Pace(1_500_000), 6.0)  # 0.4 s at 63,000
    assert slow == sorted(slow, reverse=True)
    assert 0.4 > 0.02 + 6.0 * slow[-1] / 1e6 > 0.15
    assert drawn_by(Pace(1_500_000), 1000.0)[-1] == 50_000
    middling = drawn_by(Pace(1_500_000), 0.4)  # 0.18 s at 400,000: neither more nor fewer
    assert middling == [100_000, 200_000, 400_000]


def test_browser_that_was_slow_for_a_while_is_given_more_again() -> None:
    pace = Pace(400_000)
    drawn_by(pace, 1000.0)
    assert pace.given == 50_000
    assert drawn_by(pace, 0.01, 100) == [50_000]  # half of what was too many
    assert drawn_by(pace, 0.01, 200)[-1] == 400_000


def test_asking_for_more_splats_begins_anew() -> None:
    pace = Pace(1_500_000)
    drawn_by(pace, 4.0)
    pace.limit(1_000_000)
    assert pace.given == 1_000_000
    with pytest.raises(SceneError, match="a budget of 0"):
        pace.limit(0)


# A world that grows while it is watched -------------------------------------------------------

LATER = CAMERA.moved(forward=1.0)
EVENTS = [
    Loaded("street.jpg", CAMERA, "as given", "prior", "patch"),
    Committed(0, dots(4), CAMERA, 1.0, 2.0),
    Planned((LATER, LATER, LATER, LATER)),
    Retrieved((0,), 0.9),
    Committed(1, dots(3), LATER, 0.2, 1.0),
    Skipped(LATER, 0.001),
    Committed(2, Splats.empty(), LATER, 0.2, 1.0),
    Finished(3, 7, 5.0),
]


def test_a_world_grows_chunk_by_chunk(app: ViewerApp) -> None:
    seen = []

    def look(event: Any) -> None:
        bar = app.panel.progress.value if app.panel.progress.visible else None
        seen.append((len(nodes(app)), bar))
        assert app.panel.cancel.visible
        assert plain(str(event)) in app.panel.words.content
        assert "Making a world" in app.panel.words.content

    assert app.works.follow(iter(EVENTS), look)
    assert seen == [(0, 0), (1, 0), (1, 0), (1, 0), (2, 25), (2, 50), (2, 75), (2, 100)]
    assert not (app.panel.words.visible or app.panel.progress.visible or app.panel.cancel.visible)
    assert list(nodes(app)) == ["/world/step 0", "/world/step 1"]
    assert app.steps == 3
    assert "street.jpg" in app.panel.title.content
    assert "7 splats in 3 steps" in app.panel.title.content


def test_size_floor_is_that_of_the_steps_own_view(app: ViewerApp) -> None:
    """The photograph spans 2 tan(30 deg) 3/4 in 600 rows; step 1 stands 1 m from its splats."""
    pixel = 2 * math.tan(math.radians(30)) * 0.75 / 600
    small = dots(1, depth=2.0, sigma=1e-4)
    small.means[0, 0] = 0.0
    app.works.follow(
        iter([EVENTS[0], Committed(0, small, CAMERA, 1, 1), Committed(1, small, LATER, 1, 1)])
    )
    for node, distance in zip(nodes(app).values(), (2.0, 1.0), strict=True):
        variance = (0.7 * pixel * distance) ** 2
        np.testing.assert_allclose(np.diagonal(node.covariances[0]), variance, rtol=0.05)


def creation(monkeypatch: pytest.MonkeyPatch, *events: Any) -> list[str]:
    """Replace the making of worlds; an exception among the events is raised in its turn."""
    log: list[str] = []

    class Creation:
        world = None

        def __init__(self, photo: Path, folder: Path, **settings: Any) -> None:
            log.append(f"{photo} {folder} {settings}")

        def events(self) -> Iterator[Any]:
            try:
                for event in events:
                    if isinstance(event, BaseException):
                        raise event
                    yield event
            finally:
                log.append("ended")

    def picture(path: str, long_side: int) -> Picture:
        return Picture(np.zeros((48, 64, 3), np.float32), None, "", path, (64, 48))

    monkeypatch.setattr("viewer.session.load_picture", picture)
    monkeypatch.setattr("scenegen.world.Creation", Creation, raising=False)
    monkeypatch.setattr(ViewerApp, "wait", lambda app: log.append("waited"))
    return log


def test_photo_is_made_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    log = creation(monkeypatch, *EVENTS)
    seen: list[Any] = []
    view_photo("p.jpg", "out", {"seed": 3}, port=0, on_event=seen.append)
    assert seen == EVENTS
    assert log == ["p.jpg out {'seed': 3}", "ended", "waited"]


OUT_OF_DISK = SceneError("the disk is full", why="no space is left", fix="make some")


def test_failure_before_the_first_step_ends_the_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    log = creation(monkeypatch, EVENTS[0], OUT_OF_DISK)
    with pytest.raises(SceneError, match="disk is full"):
        view_photo("p.jpg", "out", port=0)
    assert "waited" not in log


def test_failure_later_shows_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    log = creation(monkeypatch, *EVENTS[:3], OUT_OF_DISK)
    told: list[str] = []
    fail = ViewerApp.fail
    monkeypatch.setattr(
        ViewerApp, "fail", lambda app, e: (fail(app, e), told.append(app.panel.words.content))
    )
    with pytest.raises(SceneError, match="disk is full"):
        view_photo("p.jpg", "out", port=0)
    assert log[-1] == "waited"
    assert "the disk is full" in told[0]
    assert "make some" in told[0]


def test_ctrl_c_during_creation_ends_cleanly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = creation(monkeypatch, *EVENTS[:3])
    caplog.set_level(logging.INFO)

    def interrupt(event: Any) -> None:
        if isinstance(event, Planned):
            raise KeyboardInterrupt

    view_photo("p.jpg", "out", port=0, on_event=interrupt)
    assert log[-1] == "ended"
    assert "1 steps are in out" in caplog.text


def test_ctrl_c_ends_the_viewer_cleanly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    urls = []

    def pressed(seconds: float) -> bool:
        raise KeyboardInterrupt

    start = ViewerApp.show_world

    def show(app: ViewerApp, shown: Any) -> None:
        start(app, shown)
        urls.append((app.url, app.server.get_port()))
        event = app._closed
        app._closed = Mock(wait=pressed, set=event.set, is_set=event.is_set)

    monkeypatch.setattr(ViewerApp, "show_world", show)
    view_world(world(3), port=0)
    assert urls[0][0] in caplog.text
    with socket.socket() as probe:
        probe.settimeout(2)
        assert probe.connect_ex(("127.0.0.1", urls[0][1])) != 0


def test_folder_that_is_no_world_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="is not a world"):
        view_world(tmp_path, port=0)


def test_importing_the_viewer_loads_nothing_heavy() -> None:
    code = "import sys, viewer; assert not {'viser', 'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
