"""Depth models of the hub: offline, with tiny random networks saved to a temporary folder."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from test_geometry import outdoor

from renderers import Camera, SceneError
from scenegen import geometry, models
from scenegen.geometry import moge as moge_file
from scenegen.geometry import relative
from scenegen.geometry.depth_anything import Preparation
from scenegen.geometry.ground import GroundFit, ground_disparity
from scenegen.geometry.relative import metric_depth, scaled_depth
from scenegen.models import hub

NEEDS_TRANSFORMERS = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="transformers is not installed: pip install 'scenegen-worlds[hub]'",
)
SMALL = "depth-anything/Depth-Anything-V2-Small-hf"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache of the hub, and no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def save_tiny(folder: Path, kind: str = "relative") -> Path:
    """A Depth Anything of a few thousand random weights, as the hub would hold it."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=126,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    torch.manual_seed(0)
    network = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=32,
            patch_size=14,
            neck_hidden_sizes=[8, 16, 16, 32],
            fusion_hidden_size=8,
            head_hidden_size=8,
            reassemble_factors=[4, 2, 1, 0.5],
            depth_estimation_type=kind,
            max_depth=20 if kind == "metric" else 1,
        )
    )
    with torch.no_grad():
        for value in network.head.parameters():  # an untrained head answers 0 nearly everywhere
            value.add_(0.05)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 126, "width": 126}, "ensure_multiple_of": 14})
    )
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


def cached(folder: Path, repo: str = SMALL) -> None:
    """Put a model where the hub's client would."""
    kept = hub.hub_cache() / f"models--{repo.replace('/', '--')}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("abc123")
    (kept / "snapshots").mkdir()
    (kept / "snapshots" / "abc123").symlink_to(folder)


@NEEDS_TRANSFORMERS
@pytest.mark.parametrize("shape", [(96, 144), (144, 96), (16, 16)])
def test_a_local_folder_is_run(tiny: Path, shape: tuple[int, int]) -> None:
    name = f"depth-anything:{tiny}"
    result = geometry.estimate(outdoor(*shape), name, fov_degrees=60)
    assert result.depth.shape == shape
    assert (result.depth > 0).all() and not torch.isnan(result.depth).any()
    again = geometry.estimate(outdoor(*shape), name, fov_degrees=60)
    assert torch.equal(result.depth, again.depth)
    assert result.scale


@NEEDS_TRANSFORMERS
def test_answers_are_those_of_transformers_brought_to_metres(tiny: Path) -> None:
    from transformers import DepthAnythingForDepthEstimation

    from scenegen.geometry.depth_anything import DepthAnything

    picture = outdoor(96, 144)
    ours = DepthAnything(str(tiny))
    theirs = DepthAnythingForDepthEstimation.from_pretrained(tiny).eval()
    with torch.no_grad():
        pixels = ours.prepare(picture)
        assert pixels.shape == (1, 3, 84, 126)  # 126 / 144 changes less than 126 / 96
        raw = theirs(pixel_values=pixels).predicted_depth
        assert raw.std() > 0
        camera = Camera.from_fov(60, 144, 96)
        no_sky = torch.zeros(96, 144, dtype=torch.bool)
        raw = torch.nn.functional.interpolate(raw[None], (96, 144), mode="bilinear")[0, 0]
        depth, scale = metric_depth(raw, no_sky, camera.px_from_cam, 1.6)
        answer = ours.depth(picture, no_sky, camera.px_from_cam, 1.6)
    torch.testing.assert_close(answer.depth, depth)
    assert answer.scale == scale


@NEEDS_TRANSFORMERS
def test_a_metric_model_keeps_its_metres_without_ground(tmp_path: Path) -> None:
    from scenegen.geometry.depth_anything import DepthAnything

    network = DepthAnything(str(save_tiny(tmp_path / "metric", "metric")))
    no_sky = torch.zeros(64, 64, dtype=torch.bool)
    wall = torch.full((64, 64), 4.0)
    camera = Camera.from_fov(60, 64, 64)
    depth, scale = scaled_depth(wall, no_sky, camera.px_from_cam, 1.6)
    torch.testing.assert_close(depth, wall)
    assert "learnt by the network" in scale
    with torch.no_grad():
        answer = network.depth(outdoor(64, 64), no_sky, camera.px_from_cam, 1.6)
    assert (answer.depth > 0).all() and (answer.depth <= 150).all()


@NEEDS_TRANSFORMERS
def test_the_default_is_read_from_the_cache_of_the_hub(tiny: Path) -> None:
    with pytest.raises(SceneError) as caught:
        geometry.estimate(outdoor(), "depth-anything")
    assert caught.value.what == "depth backend 'depth-anything' cannot run here"
    assert f"{SMALL} is not in the cache of the hub's client" in caught.value.why
    assert "scenegen models pull depth-anything" in caught.value.fix
    cached(tiny)
    found = geometry.estimate(outdoor(), "depth-anything")
    direct = geometry.estimate(outdoor(), f"depth-anything:{tiny}")
    assert torch.equal(found.depth, direct.depth)


@NEEDS_TRANSFORMERS
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: (f / "config.json").write_text("{"), "its settings cannot be read"),
        (lambda f: (f / "config.json").write_text('{"model_type": "dpt"}'), "describes dpt"),
        (lambda f: (f / "model.safetensors").unlink(), "no safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"12345678{}"), ""),
    ],
)
def test_files_that_are_no_such_model_are_refused(
    tiny: Path, tmp_path: Path, change: object, why: str
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    change(folder)  # type: ignore[operator]
    with pytest.raises(SceneError, match="does not hold a Depth Anything model") as caught:
        geometry.estimate(outdoor(), f"depth-anything:{folder}")
    assert why in caught.value.why and len(caught.value.why) > 5


@NEEDS_TRANSFORMERS
def test_weights_that_lack_a_part_are_refused(tiny: Path, tmp_path: Path) -> None:
    """transformers would fill it with random numbers and say so in passing."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "part"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny / "config.json").read_bytes())
    weights = load_file(tiny / "model.safetensors")
    del weights["head.conv1.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SceneError, match=r"lack 1 parts, head\.conv1\.weight"):
        geometry.estimate(outdoor(), f"depth-anything:{folder}")


def test_a_damaged_file_of_the_cache_is_found(tmp_path: Path) -> None:
    right = tmp_path / hashlib.sha256(b"weights").hexdigest()
    right.write_bytes(b"weights")
    link = tmp_path / "model.safetensors"
    link.symlink_to(right)
    hub.check_blob(link)
    right.write_bytes(b"weighty")
    with pytest.raises(SceneError, match=r"model\.safetensors in the hub's cache is damaged"):
        hub.check_blob(link)
    other = tmp_path / "own.safetensors"
    other.write_bytes(b"anything")
    hub.check_blob(other)


@pytest.mark.parametrize("name", ["depth-anything", "moge"])
def test_a_missing_package_is_said_on_three_lines(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scenegen import cli

    find = importlib.util.find_spec
    hidden = {"transformers", "moge", "utils3d"}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda n, *a: None if n in hidden else find(n, *a)
    )
    photo = Path(__file__).parents[1] / "assets" / "photos" / "street.jpg"
    command = ["create", str(photo), "--out", str(tmp_path / "w"), "--depth", name]
    assert cli.main(command) == 2
    what, why, fix = capsys.readouterr().err.strip().splitlines()[-3:]
    assert what == f"error: depth backend '{name}' cannot run here"
    assert "is installed" in why and "pip install" in fix
    assert not (tmp_path / "w").exists()


def test_sources_that_mean_nothing_are_refused() -> None:
    with pytest.raises(SceneError, match="unknown depth backend 'prior:x'"):
        geometry.choose_depth("prior:x")
    with pytest.raises(SceneError, match="unknown depth backend 'depth-anything:'"):
        geometry.choose_depth("depth-anything:")
    with pytest.raises(SceneError, match="neither a folder, nor OWNER/NAME"):
        models.hub_folder("no such thing")


def test_non_commercial_weights_are_never_chosen_unasked_and_say_so() -> None:
    reached = {"moge": "moge", "depth-anything": "depth-anything"}
    assert all(models.HUB_MODELS[name].commercial for name in reached.values())
    line = models.licence_line("depth-anything-large")
    assert "CC-BY-NC-4.0" in line and "NOT for commercial use" in line
    assert models.licence_line(SMALL) == f"{SMALL}: licence Apache-2.0"


def test_the_licence_of_other_models_is_read_from_their_card(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert "no licence stated; not checked by this project" in models.licence_line(folder)
    (tmp_path / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\nlicense: no\n")
    assert "licence mit; not checked by this project" in models.licence_line(folder)


@NEEDS_TRANSFORMERS
def test_the_licence_is_said_when_a_model_is_used(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models.say_licence.cache_clear()
    with caplog.at_level(logging.INFO, "scenegen"):
        geometry.estimate(outdoor(), f"depth-anything:{tiny}")
    assert any("read its model card" in record.message for record in caplog.records)


def test_pulling_offline_says_so(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="HF_HUB_OFFLINE is set"):
        models.pull("depth-anything")
    cached(tmp_path)
    assert models.pull("depth-anything").resolve() == tmp_path
    with pytest.raises(SceneError, match="cannot download someone/something"):
        models.pull("someone/something")


def test_the_cache_is_where_the_hub_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hub.hub_cache() == tmp_path / "hub"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert hub.hub_cache() == tmp_path / "home" / "hub"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub.hub_cache() == tmp_path / "huggingface" / "hub"


def test_the_size_of_the_input_by_hand() -> None:
    """480 x 640 to 518: 518/480 = 1.079, 518/640 = 0.809; nearer to 1 is the first: 518 x 690.7,
    and 690.7 is 49.3 patches, so 49 of them: 686.
    """
    assert Preparation().size(480, 640) == (518, 686)
    assert Preparation().size(518, 518) == (518, 518)
    assert Preparation().size(2000, 1000) == (1036, 518)  # by width: 0.518 changes less than 0.259


def test_relative_disparity_gets_its_metres_from_the_ground() -> None:
    """A level floor and a wall at 8 m, given as 3.7 times their disparity and 0.05 more."""
    camera = Camera.from_fov(60, 160, 120)
    no_sky = torch.zeros(120, 160, dtype=torch.bool)
    for eye_height in (0.8, 1.6):
        truth = ground_disparity(120, 160, camera.px_from_cam, eye_height).clamp_min(1 / 8)
        depth, scale = metric_depth(3.7 * truth + 0.05, no_sky, camera.px_from_cam, eye_height)
        torch.testing.assert_close(depth, 1 / truth, rtol=0.03, atol=0)
        assert scale == f"ground seen, {eye_height:g} m below the camera"


def test_relative_disparity_without_ground_gets_a_usual_depth() -> None:
    """Two walls, one twice as far: the median wall, which is nearer, is supposed 3 m away."""
    disparity = torch.full((60, 80), 5.0)
    disparity[:, 60:] = 2.5
    camera = Camera.from_fov(60, 80, 60)
    no_sky = torch.zeros(60, 80, dtype=torch.bool)
    depth, scale = metric_depth(disparity, no_sky, camera.px_from_cam, 1.6)
    torch.testing.assert_close(depth[0, [0, 79]], torch.tensor([3.0, 6.0]))
    assert scale == "no ground seen: a median depth of 3 m supposed"
    flat, _ = metric_depth(torch.zeros(60, 80), no_sky, camera.px_from_cam, 1.6)
    assert torch.isfinite(flat).all() and (flat > 0).all()


def test_a_camera_that_looks_down_does_not_send_the_room_to_infinity() -> None:
    """Pitched by 20 degrees the floor's disparity is not 0 at the middle row: its shift is no
    shift of the estimate, and would put all that is above the middle beyond the horizon.
    """
    camera = Camera.from_fov(60, 160, 120)
    rows = (torch.arange(120) + 0.5 - 60) / camera.px_from_cam[1, 1]
    floor = (rows * torch.cos(torch.tensor(0.35)) + torch.sin(torch.tensor(0.35))) / 1.6
    truth = floor[:, None].expand(120, 160).clamp_min(1 / 8)
    no_sky = torch.zeros(120, 160, dtype=torch.bool)
    depth, _ = metric_depth(truth, no_sky, camera.px_from_cam, 1.6)
    assert depth.max() < 40


def test_what_the_first_fit_lost_stays_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the scene is supposed at 3 m: less 0.4 of its disparity it is beyond infinity, and a
    later round that adds 0.001 must not bring it back to 1 / (1/150 + 0.001) = 130 m.
    """
    fits = [GroundFit(1.0, -0.4), GroundFit(1.0, 0.001), GroundFit(1.0, 0.0), GroundFit(0.5, 0.0)]
    monkeypatch.setattr(relative, "fit_ground", lambda *_, **__: fits.pop(0))
    disparity = torch.ones(60, 80)
    disparity[:30] = 0.75  # 1/3 m; the others 4/9 m
    camera = Camera.from_fov(60, 80, 60)
    no_sky = torch.zeros(60, 80, dtype=torch.bool)
    depth, scale = metric_depth(disparity, no_sky, camera.px_from_cam, 1.6)
    torch.testing.assert_close(depth[[0, 59], 0], torch.tensor([6.0, 4.5]))
    assert scale.endswith("by a camera that is not level")


class FakeMoGe(torch.nn.Module):
    """What scenegen uses of ``moge.model.v2.MoGeModel``: the same names and arguments."""

    def __init__(self, neck: dict, width: int) -> None:
        super().__init__()
        self.scale_head = torch.nn.Linear(width, 1)

    @property
    def device(self) -> torch.device:
        return self.scale_head.weight.device

    def infer(
        self, image: torch.Tensor, fov_x: float | None = None, use_fp16: bool = True
    ) -> dict[str, torch.Tensor]:
        _, height, width = image.shape
        depth = torch.full((height, width), float(fov_x or 0.0) / 10)
        depth[0] = torch.inf
        return {"depth": depth}


@pytest.fixture
def with_moge(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("moge.model.v2")
    module.MoGeModel = FakeMoGe  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "moge.model.v2", module)
    find = importlib.util.find_spec
    there = {"moge", "utils3d"}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda n, *a: SimpleNamespace() if n in there else find(n, *a)
    )
    moge_file._load.cache_clear()


@pytest.mark.usefixtures("with_moge")
def test_moge_is_told_the_lens_and_its_holes_are_far(tmp_path: Path) -> None:
    weights = FakeMoGe({}, 3).state_dict()
    torch.save({"model_config": {"neck": {}, "width": 3}, "model": weights}, tmp_path / "model.pt")
    name, make = geometry.choose_depth(f"moge:{tmp_path}")
    assert name == f"moge:{tmp_path.resolve()}"
    camera = Camera.from_fov(60, 40, 30)
    no_sky = torch.zeros(30, 40, dtype=torch.bool)
    answer = make().depth(outdoor(30, 40), no_sky, camera.px_from_cam, 1.6)
    torch.testing.assert_close(answer.depth, torch.full((30, 40), 6.0))
    assert (answer.confidence[0] == 0).all() and (answer.confidence[1:] > 0.5).all()
    assert answer.scale == "metres learnt by the network, as too little ground is seen"


@pytest.mark.usefixtures("with_moge")
def test_moge_opens_no_pickle_that_runs_code(tmp_path: Path) -> None:
    torch.save({"model_config": subprocess.Popen, "model": {}}, tmp_path / "model.pt")
    with pytest.raises(SceneError, match=r"model\.pt cannot be read"):
        geometry.choose_depth(f"moge:{tmp_path}")[1]()
    torch.save({"model_config": {"neck": {}, "width": 3}, "model": {}}, tmp_path / "model.pt")
    with pytest.raises(SceneError, match=r"lack 2 parts, scale_head\.weight"):
        geometry.choose_depth(f"moge:{tmp_path}")[1]()
