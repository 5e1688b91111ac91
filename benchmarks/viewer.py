"""How the viewer feels: how soon there is a picture, how soon work stops, a million splats.

Run: python -m benchmarks.viewer paint [--photo FILE]      the photograph, once the page is opened
     python -m benchmarks.viewer cancel [--photo FILE]     from the wish to stop until it has
     python -m benchmarks.viewer million [--world FOLDER]  memory of the server, pace of the browser

In Chromium, which `paint` and `million` need (SCENEGEN_CHROME names another); on machines like the
tests' it draws by software, and what it is given is what it draws smoothly. Wall times: on a quiet
machine only.
"""

from __future__ import annotations

import renderers  # noqa: F401  before torch: it says how threads wait

# isort: split
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import UInt8
from PIL import Image

import scenegen
from renderers import Camera, Splats
from scenegen.stopping import stoppable
from scenegen.world import Committed, Measure, create_events
from spatial_memory import ViewMemory
from tests.browser import CHROME, Complaints, Page, wait_for
from viewer import ViewerApp
from viewer.page import BACKGROUND
from viewer.visitor import Visitor

PHOTO = Path(__file__).parents[1] / "assets" / "photos" / "lane.jpg"
WINDOW = (1280, 800)
"""Pixels."""
PAINT, STOP, MEMORY, ANSWER = 10.0, 2.0, 3.0, 1.0
"""Seconds until the photograph is seen, and until work has stopped; GB of the server; seconds from
a key to a new picture."""
MOMENTS = (0.3, 1.0, 2.0, 4.0)
"""Seconds after which growing is cancelled."""
COUNT, CHUNKS = 1_200_000, 8
"""Splats of the drawn world, and the steps that they come in."""
FINE = 4e-4
"""Their standard deviation in metres: at 3 m, a tenth of a pixel of the window."""
SETTLING, TAPS = 60.0, 9
"""Seconds that the browser is given to find its pace at most, and keys that are pressed then."""
HELD, REST = 1.0, 1.0
"""Seconds that a key is held after the first new picture, and until the next one."""
WATCH = """(() => {
    const watch = window.watch = { answers: [], frames: [] };
    const GL = WebGL2RenderingContext.prototype, draw = GL.drawElementsInstanced;
    const frame = window.requestAnimationFrame;
    let gl = null, last = null, still = null, pressed = 0;
    GL.drawElementsInstanced = function (...call) {
        gl = this;
        draw.apply(this, call);
    };
    window.requestAnimationFrame = (step) => frame((time) => {
        step(time);
        if (!gl) return;
        const [width, height] = [gl.drawingBufferWidth, gl.drawingBufferHeight];
        last = new Uint8Array(4 * width);
        gl.readPixels(0, height >> 1, width, 1, gl.RGBA, gl.UNSIGNED_BYTE, last);
        gl = null;
        const now = performance.now();
        watch.frames.push(now);
        const change = still && still.reduce((sum, level, k) => sum + Math.abs(level - last[k]), 0);
        if (change > 2 * last.length) {
            watch.answers.push(now - pressed);
            still = null;
        }
    });
    addEventListener("keydown", (event) => {
        if (!event.repeat) [still, pressed] = [last, event.timeStamp];
    }, true);
})()"""
"""Notes when a picture was drawn, and how long after a key the first other one, in milliseconds:
reading its middle row waits until it is done."""
Pixels = UInt8[np.ndarray, "h w 3"]


def paint(photo: Path = PHOTO) -> int:
    """Open the page of `scenegen view PHOTO` as soon as it is served."""
    with tempfile.TemporaryDirectory() as scratch, _tab(Path(scratch)) as page:
        log = Path(scratch) / "log"
        command = [sys.executable, "-m", "scenegen", "view", str(photo), "--port", "0"]
        command += ["--out", str(Path(scratch) / "world"), "--extent", "photo"]
        started = time.monotonic()
        with log.open("w") as file:
            server = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            url = wait_for(lambda: re.search(r"http://\S+", log.read_text()), "the server").group()
            served = time.monotonic()
            page.call("Page.navigate", url=url)
            wait_for(lambda: _shows(page, photo), "the photograph")
            seen = time.monotonic()
            entries = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            painted = page.ask(entries) / 1e3
        finally:
            server.terminate()
            server.wait()
    about = "from opening the page until a screenshot shows the photograph"
    return _told(
        Measure("start", served - started, "s", None, False, "from the command until it serves"),
        Measure("painted", painted, "s", PAINT, False, "first paint of the page, as it says"),
        Measure("photograph", seen - served, "s", PAINT, False, about),
    )


def _shows(page: Page, photo: Path) -> bool:
    """Whether the window shows the photograph, as high as the window."""
    try:
        shot = page.screenshot()
    except AssertionError:  # the tab is between two pages
        return False
    with Image.open(photo) as opened:
        width = round(opened.width * WINDOW[1] / opened.height)
        whole = np.asarray(opened.convert("RGB").resize((width, WINDOW[1])), int)
    rows, middle = slice(200, 600), slice(WINDOW[0] // 2 - 200, WINDOW[0] // 2 + 100)
    wanted = whole[rows, width // 2 - 200 : width // 2 + 100]
    return bool(np.abs(shot[rows, middle] - wanted).mean() < 20)


def cancel(photo: Path = PHOTO) -> int:
    """Make two steps of a world, asking all the time; then cancel growth, at several moments."""
    gaps: list[tuple[float, float, str]] = []
    last = time.monotonic(), time.process_time()

    def asked() -> bool:
        nonlocal last
        place = sys._getframe(2)  # who called checkpoint()
        now = time.monotonic(), time.process_time()
        where = f"{Path(place.f_code.co_filename).name}:{place.f_lineno}"
        gaps.append((now[0] - last[0], now[1] - last[1], where))
        last = now
        return False

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "world"
        with stoppable(asked), closing(create_events(photo, folder, extent="look")) as events:
            made = 0
            for event in events:
                asked()  # between events it stops as well
                made += isinstance(event, Committed)
                if made == 3:
                    break
        stopped = list(_cancelled(folder))
    for wall, cpu, where in sorted(gaps, reverse=True)[:3]:
        print(f"{wall:6.2f} s, {cpu:.2f} s of CPU, ending at {where}")
    longest, worst = max(gaps)[0], max(stopped)
    about = "longest time between two places where making a world can stop"
    return _told(
        Measure("unstoppable", longest, "s", STOP, False, about),
        Measure("cancel", worst, "s", STOP, False, f"slowest of {len(MOMENTS)}, while it grows"),
    )


def _cancelled(folder: Path) -> Iterator[float]:
    """Seconds from the wish to stop until nothing goes on."""
    with closing(scenegen.open(folder)) as world, ViewerApp(port=0) as app:
        app.show_world(world)
        way = [world.camera0.moved(yaw_degrees=yaw) for yaw in (30.0, -30.0)]
        for moment in MOMENTS:
            work = threading.Thread(target=lambda: app.works.follow(world.grow(way)))
            work.start()
            time.sleep(moment)
            if app.jobs.job is None:
                sys.exit(f"growing was done before it was cancelled, after {moment} s")
            wished = time.monotonic()
            app.jobs.cancel()
            app.jobs.wait()
            yield time.monotonic() - wished
            work.join()


def million(world: Path | None = None, keep: Path | None = None) -> int:
    """Show a large world: by default one of splats that are all far smaller than a pixel.

    Args:
        world: Another one.
        keep: Folder for the pictures.
    """
    complaints = Complaints()
    shown: Any = scenegen.open(world) if world else _fine_world()
    with tempfile.TemporaryDirectory() as scratch, ViewerApp(port=0) as app:
        app.show_world(shown)
        with _tab(Path(scratch)) as page:
            page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
            page.call("Page.navigate", url=app.url)
            (person,) = wait_for(lambda: app.visitors, "a visitor")
            took, settled = _settle(person)
            wait_for(lambda: _filled(page.screenshot()) > 0.5, "a picture")
            first = page.screenshot()
            answers = [_answer(page, "ArrowRight" if n % 2 else "ArrowLeft") for n in range(TAPS)]
            if keep:
                Image.fromarray(first).save(keep / "million.png")
                Image.fromarray(page.screenshot()).save(keep / "million_turned.png")
            errors = [*page.complaints(), *complaints.heard]
            drawn = person.splats.shown
    complaints.stop()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    held = "most in use by the server, and this benchmark"
    given = f"in the browser, {'settled' if settled else 'not settled'} after {took:.0f} s"
    pace = f"median of {TAPS} keys, until another picture is drawn; slowest {max(answers):.2f} s"
    return _told(
        Measure("splats", app.stage.total, "", None, True, "of the world"),
        Measure("memory", memory, "GB", MEMORY, False, held),
        Measure("drawn", drawn, "", None, True, given),
        Measure("answer", statistics.median(answers), "s", ANSWER, False, pace),
        Measure("filled", 100 * _filled(first), "%", 95.0, True, "of the picture's middle"),
        Measure("errors", len(errors), "", 0, False, "; ".join(errors)[:200]),
    )


def _fine_world() -> Any:
    """Walls, floor and ceiling around the visitor, in splats with gaps between them."""
    rng = torch.Generator().manual_seed(0)
    camera = Camera.from_fov(75.0, *WINDOW)
    chunks = []
    for _ in range(CHUNKS):
        rays = torch.randn(COUNT // CHUNKS, 3, generator=rng)
        reach = (torch.tensor([3.0, 1.5, 3.0]) / rays.abs().clamp_min(1e-9)).min(1).values
        means = rays * reach[:, None]
        n = len(means)
        chunks.append(
            Splats(
                means=means,
                quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4).clone(),
                scales=torch.full((n, 3), FINE),
                opacities=torch.full((n,), 0.9),
                colors=0.6 + 0.3 * torch.sin(3 * means),
            )
        )
    steps = [SimpleNamespace(id=k, camera=camera, provenance="observed") for k in range(CHUNKS)]
    return SimpleNamespace(
        folder=Path("fine"), camera0=camera, steps=steps, chunks=chunks, memory=ViewMemory(),
        sky_radius=60.0, eye_height=1.6,
    )  # fmt: skip


def _settle(person: Visitor) -> tuple[float, bool]:
    """Wait until the browser has been given the same number of splats for a while."""
    started = changed = time.monotonic()
    given = person.pace.given
    while time.monotonic() - started < SETTLING:
        time.sleep(0.2)
        if person.pace.given != given:
            given, changed = person.pace.given, time.monotonic()
        if time.monotonic() - changed > 12.0 and person.splats.shown > 0:
            return changed - started, True
    return time.monotonic() - started, False


def _answer(page: Page, key: str) -> float:
    """Seconds from a key that turns the head until the browser has drawn another picture."""
    before = page.ask("watch.answers.length")
    page.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key)
    wait_for(lambda: page.ask("watch.answers.length") > before, "a new picture")
    time.sleep(HELD)
    page.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)
    time.sleep(REST)
    return page.ask("watch.answers.at(-1)") / 1e3


def _middle(shot: Pixels) -> np.ndarray:
    """Where no panel lies."""
    height, width = shot.shape[:2]
    return shot[height // 4 : 3 * height // 4, width // 3 : 2 * width // 3].astype(int)


def _filled(shot: Pixels) -> float:
    """Share of the picture's middle that is not empty."""
    return float((np.abs(_middle(shot) - BACKGROUND).max(-1) > 12).mean())


@contextmanager
def _tab(scratch: Path) -> Iterator[Page]:
    if CHROME is None:
        sys.exit("no Chromium or Chrome found; name one in SCENEGEN_CHROME")
    page = Page(scratch / "chrome", *WINDOW)
    try:
        yield page
    finally:
        page.close()


def _told(*measures: Measure) -> int:
    """Print them. Returns how many targets are missed."""
    print(*measures, sep="\n", flush=True)
    return sum(measure.reached is False for measure in measures)


if __name__ == "__main__":
    modes: dict[str, Callable[..., int]] = {"paint": paint, "cancel": cancel, "million": million}
    missed = tyro.extras.subcommand_cli_from_dict(modes, description=__doc__)
    sys.exit(1 if missed else 0)
