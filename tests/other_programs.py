"""Other people's programs that read our files, driven from tests: from npm, and Blender.

    npm install @playcanvas/splat-transform playcanvas gltf-validator three @sparkjsdev/spark

in the project's folder, or anywhere with SCENEGEN_NODE_MODULES set to its ``node_modules``. For
Blender, SCENEGEN_BLENDER_PYTHON names a Python that has its module ``bpy``. Tests skip with a
reason where a program is not there.
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
from PIL import Image

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


BLENDER = os.environ.get("SCENEGEN_BLENDER_PYTHON")
NEEDS_BLENDER = pytest.mark.skipif(
    not BLENDER, reason="no Blender: name a Python that has bpy in SCENEGEN_BLENDER_PYTHON"
)


def blender_picture(
    file: Path, size: tuple[int, int], fov_x: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """A mesh as Blender imports and draws it, from the origin along its +y, z up.

    Returns:
        The picture (h, w, 3), 0 to 1, and the vertices, triangles and bounds of the import.
    """
    script, out = Path(__file__).with_name("in_blender.py"), file.with_suffix(".blender.png")
    command = [str(BLENDER), str(script), str(file), str(out), *map(str, (*size, fov_x))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("imported "))
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB")) / 255.0
    return pixels, json.loads(line.removeprefix("imported "))


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


PAGE = """<!doctype html><link rel="icon" href="data:,">
<style>body {{ margin: 0; background: black }} canvas {{ display: block }}</style>
<script type="importmap">{{"imports": {{
  "three": "/node_modules/three/build/{three}",
  "three/webgpu": "/node_modules/three/build/three.webgpu.js",
  "three/tsl": "/node_modules/three/build/three.tsl.js",
  "three/addons/": "/node_modules/three/examples/jsm/",
  "playcanvas": "/node_modules/playcanvas/build/playcanvas.mjs",
  "@sparkjsdev/spark": "/node_modules/@sparkjsdev/spark/dist/spark.module.js"}}}}</script>
<script type="module">
const name = "{name}", fov = {fov}, turned = {turned};
let frames = 0;
{body}
</script>"""
_THREE = """
const scene = new THREE.Scene();
const camera = new THREE.PerspectiveCamera(fov, innerWidth / innerHeight, 0.05, 100);
renderer.setSize(innerWidth, innerHeight);
document.body.appendChild(renderer.domElement);
"""
_DRAWN = """
renderer.setAnimationLoop(() => {
  renderer.render(scene, camera);
  window.frames_drawn = ++frames;
});
"""  # begun once all is loaded, so that a slow machine takes no picture of nothing
_WEBGL = """
import * as THREE from "three";
const renderer = new THREE.WebGLRenderer({antialias: false, preserveDrawingBuffer: true});
"""
_SPARK = """
import { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";
scene.add(new SparkRenderer({ renderer }));
const mesh = new SplatMesh({ url: name });
mesh.quaternion.set(+turned, 0, 0, +!turned);
await mesh.initialized;
window.splat_count = mesh.packedSplats?.numSplats ?? mesh.numSplats;
scene.add(mesh);
"""
_LOADED = """
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
const loaded = await new GLTFLoader().loadAsync(name);
scene.add(loaded.scene);
"""
_LOADED_SPLATS = (
    """
import * as THREE from "three/webgpu";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { GLTFGaussianSplatLoaderExtension as Splats }
  from "three/addons/loaders/GLTFGaussianSplatLoaderExtension.js";
const renderer = new THREE.WebGPURenderer({antialias: false, forceWebGL: true});
renderer.outputColorSpace = THREE.LinearSRGBColorSpace;  // it takes colours for linear otherwise
await renderer.init();
"""
    + _THREE
    + """
const loaded = await new GLTFLoader().register(parser => new Splats(parser)).loadAsync(name);
loaded.scene.traverse(o => { window.splat_count ??= o.geometry?.instanceCount; });
scene.add(loaded.scene);
"""
)
_PLAYCANVAS = """
import * as pc from "playcanvas";
const canvas = document.body.appendChild(document.createElement("canvas"));
const app = new pc.Application(canvas, {
  graphicsDeviceOptions: { antialias: false, preserveDrawingBuffer: true } });
app.setCanvasFillMode(pc.FILLMODE_FILL_WINDOW);
app.setCanvasResolution(pc.RESOLUTION_AUTO);
app.start();
const eye = new pc.Entity();
eye.addComponent("camera", { fov, nearClip: 0.05, farClip: 100, clearColor: new pc.Color(0, 0, 0),
  toneMapping: pc.TONEMAP_NONE });
app.root.addChild(eye);
const asset = new pc.Asset("world", "container", { url: name });
asset.on("error", why => { throw new Error(why); });
asset.ready(() => {
  const shown = new pc.Entity();
  shown.addComponent("gsplat", { asset: asset.resource.gsplats[0] });
  window.splat_count = asset.resource.gsplats[0].resource.gsplatData.numSplats;
  app.root.addChild(shown);
  app.on("frameend", () => { window.frames_drawn = ++frames; });
});
app.assets.add(asset);
app.assets.load(asset);
"""
_BODIES = {
    "spark": _WEBGL + _THREE + _SPARK + _DRAWN,
    "three": _WEBGL + _THREE + _LOADED + _DRAWN,
    "three splats": _LOADED_SPLATS + _DRAWN,
    "playcanvas": _PLAYCANVAS,
}
"""What each program is told; "three" shows meshes, the others splats."""


def picture_by(
    program: str, tab: Page, file: Path, size: tuple[int, int], fov_x: float,
    *, turned: bool = False,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """A file as a program in a browser draws it, from the origin along -z.

    Args:
        program: One of _BODIES.
        tab: A tab of ``size``.
        file: What to show.
        size: Width and height.
        fov_x: Horizontal field of view, in degrees.
        turned: Turn the scene by 180 degrees about x, as users do with files in OpenCV's axes.

    Returns:
        The picture (h, w, 3), 0 to 1, and the number of splats that the program counts.
    """
    slope = np.tan(np.radians(fov_x) / 2) * size[1] / size[0]
    page = PAGE.format(
        three="three.webgpu.js" if program == "three splats" else "three.module.js",
        name=file.name, fov=np.degrees(2 * np.arctan(slope)), turned=str(turned).lower(),
        body=_BODIES[program],
    )  # fmt: skip
    (file.parent / "page.html").write_text(page)
    tab.errors.clear()
    with served(file.parent) as address:
        tab.open(f"{address}/page.html")
        wait_for(lambda: tab.errors or value(tab, "window.frames_drawn || 0") > 25, program)
        assert not tab.errors, tab.errors
        return tab.screenshot() / 255.0, int(value(tab, "window.splat_count || 0"))


def value(tab: Page, expression: str) -> Any:
    """What an expression of JavaScript is worth in the page."""
    answer = tab.call("Runtime.evaluate", expression=expression, returnByValue=True)
    return answer["result"].get("value")
