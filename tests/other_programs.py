"""Other people's programs that read our files: from npm, driven from tests.

    npm install @playcanvas/splat-transform gltf-validator three @sparkjsdev/spark

in the project's folder, or anywhere with SCENEGEN_NODE_MODULES set to its ``node_modules``. Tests
skip with a reason where a program is not there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROME, Page, wait_for

NODE = shutil.which("node")
MODULES = Path(
    os.environ.get("SCENEGEN_NODE_MODULES", Path(__file__).parents[1] / "node_modules")
).resolve()


def needs(*packages: str, browser: bool = False) -> pytest.MarkDecorator:
    """Skips a test where node, a package or a browser is missing, and says which."""
    missing = [name for name in packages if not (MODULES / name / "package.json").is_file()]
    reason = f"no npm package {', '.join(missing)}: see tests/other_programs.py" if missing else ""
    reason = "no node on the PATH" if NODE is None else reason
    if browser and CHROME is None:
        reason = "no Chromium or Chrome found; name one in SCENEGEN_CHROME"
    return pytest.mark.skipif(bool(reason), reason=reason)


def splat_transform(source: Path, target: Path) -> None:
    """Convert a file of splats with PlayCanvas' program."""
    program = MODULES / "@playcanvas/splat-transform/bin/cli.mjs"
    command = [str(NODE), str(program), "-q", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def validate_gltf(path: Path) -> list[dict[str, Any]]:
    """What Khronos' validator finds wrong with a ``.glb``: its errors and warnings."""
    script = (
        "const v = require('gltf-validator'), fs = require('fs');"
        "v.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))"
        ".then(r => console.log(JSON.stringify(r.issues.messages)))"
    )
    done = subprocess.run(
        [str(NODE), "-e", script, str(path)], capture_output=True, text=True, check=True,
        timeout=60, env={**os.environ, "NODE_PATH": str(MODULES)},
    )  # fmt: skip
    return [issue for issue in json.loads(done.stdout) if issue["severity"] < 2]


class Files(SimpleHTTPRequestHandler):
    """Serves a folder, and below /node_modules/ the packages."""

    def translate_path(self, path: str) -> str:
        if path.startswith("/node_modules/"):
            return str(MODULES / path.removeprefix("/node_modules/").split("?")[0])
        return super().translate_path(path)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of ``folder``."""
    handler = partial(Files, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


THREE_PAGE = """<!doctype html><link rel="icon" href="data:,">
<style>body {{ margin: 0; background: black }}</style>
<script type="importmap">{{"imports": {{
  "three": "/node_modules/three/build/three.module.js",
  "three/addons/": "/node_modules/three/examples/jsm/",
  "@sparkjsdev/spark": "/node_modules/@sparkjsdev/spark/dist/spark.module.js"}}}}</script>
<script type="module">
import * as THREE from "three";
const scene = new THREE.Scene();
const camera = new THREE.PerspectiveCamera({fov}, innerWidth / innerHeight, 0.05, 100);
const renderer = new THREE.WebGLRenderer({{antialias: false, preserveDrawingBuffer: true}});
renderer.setSize(innerWidth, innerHeight);
document.body.appendChild(renderer.domElement);
{body}
let frames = 0;
renderer.setAnimationLoop(() => {{
  renderer.render(scene, camera);
  window.frames_drawn = ++frames;
}});
</script>"""
SPARK = """
import {{ SparkRenderer, SplatMesh }} from "@sparkjsdev/spark";
scene.add(new SparkRenderer({{ renderer }}));
const mesh = new SplatMesh({{ url: "{name}" }});
mesh.quaternion.set({turn}, 0, 0, {keep});
await mesh.initialized;
window.splat_count = mesh.packedSplats?.numSplats ?? mesh.numSplats;
scene.add(mesh);
"""
GLTF = """
import {{ GLTFLoader }} from "three/addons/loaders/GLTFLoader.js";
const loaded = await new GLTFLoader().loadAsync("{name}");
scene.add(loaded.scene);
"""


def three_picture(
    tab: Page, file: Path, size: tuple[int, int], fov_x: float, *, turned: bool = False,
    splats: bool = True,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """A file as three.js draws it, splats by Spark, from the origin along -z.

    Args:
        tab: A tab of ``size``.
        file: What to show.
        size: Width and height.
        fov_x: Horizontal field of view, in degrees.
        turned: Turn the scene by 180 degrees about x, as users do with files in OpenCV's axes.
        splats: Splats or a mesh.

    Returns:
        The picture (h, w, 3), 0 to 1, and the number of splats that Spark counts.
    """
    slope = np.tan(np.radians(fov_x) / 2) * size[1] / size[0]
    body = (SPARK if splats else GLTF).format(
        name=file.name, turn=int(turned), keep=int(not turned)
    )
    page = THREE_PAGE.format(fov=np.degrees(2 * np.arctan(slope)), body=body)
    (file.parent / "page.html").write_text(page)
    tab.errors.clear()
    with served(file.parent) as address:
        tab.open(f"{address}/page.html")
        wait_for(lambda: tab.errors or value(tab, "window.frames_drawn || 0") > 25, "three")
        assert not tab.errors, tab.errors
        return tab.screenshot() / 255.0, int(value(tab, "window.splat_count || 0"))


def value(tab: Page, expression: str) -> Any:
    """What an expression of JavaScript is worth in the page."""
    answer = tab.call("Runtime.evaluate", expression=expression, returnByValue=True)
    return answer["result"].get("value")
