"""Cameras as transforms.json: matrices by hand, round trips, and files nobody should trust."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renderers import Camera, SceneError
from scenegen.export import read_transforms, transforms, write_transforms

IDENTITY = [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]
LENS = {"fl_x": 100, "fl_y": 110, "cx": 31, "cy": 23, "w": 64, "h": 48}


def written(path: Path, *cameras: Camera) -> dict[str, Any]:
    write_transforms(path, cameras)
    return json.loads(path.read_text())


def read(path: Path, **changes: Any) -> list[Camera]:
    """Read a file that is right but for ``changes``; None takes a key away."""
    content = LENS | {"frames": [{"file_path": "a.png", "transform_matrix": IDENTITY}]} | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return read_transforms(path)


def test_the_first_camera_is_diag_1_m1_m1_1(tmp_path: Path) -> None:
    content = written(tmp_path / "t.json", Camera.from_fov(90, 64, 48))
    assert content["frames"][0]["transform_matrix"] == IDENTITY
    assert {k: content[k] for k in LENS} == {
        "fl_x": 32, "fl_y": 32, "cx": 32, "cy": 24, "w": 64, "h": 48,
    }  # fmt: skip
    assert content["frames"][0]["file_path"] == "00000.png"
    assert "-0.0" not in (tmp_path / "t.json").read_text()


def test_a_moved_and_turned_camera_by_hand(tmp_path: Path) -> None:
    """At (1, 2, 3), turned 90 degrees to the right: its forward is +x, its right is -z.

    Columns of world_from_cam in OpenGL axes: right (0, 0, -1), up (0, -1, 0), backwards (-1, 0, 0).
    """
    camera = Camera.look_at((1, 2, 3), (2, 2, 3), 90, 64, 48)
    matrix = torch.tensor(written(tmp_path / "t.json", camera)["frames"][0]["transform_matrix"])
    want = torch.tensor([[0.0, 0, -1, 1], [0, -1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]])
    torch.testing.assert_close(matrix, want, rtol=0, atol=1e-6)


def test_one_lens_stands_in_the_file_and_many_in_the_frames(tmp_path: Path) -> None:
    one, other = Camera.from_fov(90, 64, 48), Camera.from_fov(60, 32, 20)
    same = written(tmp_path / "a.json", one, one.moved(right=1))
    assert "fl_x" in same and "fl_x" not in same["frames"][1]
    mixed = written(tmp_path / "b.json", one, other)
    assert "fl_x" not in mixed and mixed["frames"][1]["w"] == 32
    back = read_transforms(tmp_path / "b.json")
    assert [(c.width, c.height) for c in back] == [(64, 48), (32, 20)]
    torch.testing.assert_close(back[1].px_from_cam, other.px_from_cam, rtol=0, atol=0)


unit = st.floats(-1, 1)


@given(
    q=st.tuples(unit, unit, unit, unit).filter(lambda q: sum(x * x for x in q) > 0.01),
    eye=st.tuples(*[st.floats(-1e3, 1e3)] * 3),
    fov=st.floats(5, 150),
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
)
def test_round_trip_of_any_pose(
    tmp_path_factory: pytest.TempPathFactory,
    q: tuple[float, ...],
    eye: tuple[float, ...],
    fov: float,
    size: tuple[int, int],
) -> None:
    path = tmp_path_factory.getbasetemp() / "pose.json"
    w, x, y, z = torch.nn.functional.normalize(torch.tensor(q, dtype=torch.float64), dim=0).tolist()
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    pose[:3, 3] = -pose[:3, :3] @ torch.tensor(eye, dtype=torch.float64)
    camera = Camera.from_fov(fov, *size, cam_from_world=pose.float())
    write_transforms(path, [camera], ["x.png"])
    (back,) = read_transforms(path)
    assert (back.width, back.height) == size
    torch.testing.assert_close(back.px_from_cam, camera.px_from_cam, rtol=0, atol=0)
    atol = 1e-6 * (1 + 1e3 * 3)  # float32 at 1 km
    torch.testing.assert_close(back.cam_from_world[:3, :3], pose.float()[:3, :3], rtol=0, atol=1e-6)
    torch.testing.assert_close(back.cam_from_world, camera.cam_from_world, rtol=0, atol=atol)


def test_reads_the_forms_of_other_programs(tmp_path: Path) -> None:
    """camera_angle_x of 90 degrees at w = 64: a focal length of 32; the centre in the middle."""
    gone = dict.fromkeys(("fl_x", "fl_y", "cx", "cy"))
    (nerf,) = read(tmp_path / "t.json", **gone, camera_angle_x=math.pi / 2, w=64.0)
    want = torch.tensor([[32.0, 0, 32], [0, 32, 24], [0, 0, 1]])
    torch.testing.assert_close(nerf.px_from_cam, want, rtol=0, atol=1e-5)
    torch.testing.assert_close(nerf.cam_from_world, torch.eye(4), rtol=0, atol=0)
    angle = 2 * math.atan(24 / 48)  # focal length 48 over half of h = 24
    (both,) = read(tmp_path / "t.json", **gone, camera_angle_x=math.pi / 2, camera_angle_y=angle)
    torch.testing.assert_close(both.px_from_cam[1, 1].item(), 48.0)
    frame = {"transform_matrix": IDENTITY, "fl_x": 50, "fl_y": 51, "w": 32, "h": 16}
    (own,) = read(tmp_path / "t.json", frames=[frame])
    assert own.px_from_cam[0, 0] == 50 and own.px_from_cam[0, 2] == 31 and own.width == 32


def test_distortion_is_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "scenegen"):
        read(tmp_path / "t.json", k1=0.0, p2=0)
        assert not caplog.records
        read(tmp_path / "t.json", k1=0.1)
    assert "lens distortion of 1 frames is dropped" in caplog.text


def matrix(row: int, column: int, value: Any) -> list[dict[str, Any]]:
    rows = [list(map(float, r)) for r in IDENTITY]
    rows[row][column] = value
    return [{"transform_matrix": rows}]


BAD = {
    "no frames": ({"frames": None}, "has no list of 'frames'"),
    "empty frames": ({"frames": []}, "has no list of 'frames'"),
    "frames of text": ({"frames": "abc"}, "has no list of 'frames'"),
    "frame of text": ({"frames": ["abc"]}, "frame 0 is not an object"),
    "no matrix": ({"frames": [{}]}, "frame 0 has no 4 x 4 'transform_matrix'"),
    "short matrix": ({"frames": [{"transform_matrix": IDENTITY[:3]}]}, "has no 4 x 4"),
    "ragged": ({"frames": [{"transform_matrix": [*IDENTITY[:3], [0]]}]}, "has no 4 x 4"),
    "text in matrix": ({"frames": matrix(0, 0, "1")}, "of finite numbers"),
    "true in matrix": ({"frames": matrix(0, 0, True)}, "of finite numbers"),
    "nan in matrix": ({"frames": matrix(0, 3, math.nan)}, "of finite numbers"),
    "inf in matrix": ({"frames": matrix(0, 3, math.inf)}, "of finite numbers"),
    "huge in matrix": ({"frames": matrix(0, 3, 10**400)}, "of finite numbers"),
    "transposed": ({"frames": matrix(3, 0, 2.0)}, "last row of frame 0's matrix is not 0 0 0 1"),
    "scaled": ({"frames": matrix(0, 0, 2.0)}, "is not a rotation"),
    "mirrored": ({"frames": matrix(0, 0, -1.0)}, "is not a rotation"),
    "no focal": ({"fl_x": None}, "frame 0 has no 'fl_x'"),
    "negative focal": ({"fl_x": -1}, "focal length is not positive"),
    "zero focal": ({"fl_y": 0}, "focal length is not positive"),
    "nan focal": ({"fl_x": math.nan}, "'fl_x' of frame 0 is not a finite number"),
    "text centre": ({"cx": "31"}, "'cx' of frame 0 is not a finite number"),
    "angle": ({"fl_x": None, "camera_angle_x": 4}, "'camera_angle_x' of frame 0 is 4"),
    "no size": ({"w": None}, "'w' of frame 0 is missing"),
    "half pixel": ({"h": 48.5}, "'h' of frame 0 is 48.5"),
    "no pixels": ({"h": 0}, "'h' of frame 0 is 0"),
    "too large": ({"w": 10**6}, r"'w' of frame 0 is 1e\+06"),
    "fisheye": ({"camera_model": "OPENCV_FISHEYE"}, "camera model 'OPENCV_FISHEYE'"),
    "model": ({"camera_model": [1]}, "only pinholes are drawn"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_contents_are_refused(tmp_path: Path, name: str) -> None:
    changes, text = BAD[name]
    with pytest.raises(SceneError, match=text):
        read(tmp_path / "t.json", **changes)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff\xfe\x00", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b"3", "it is not a JSON object"),
        (b'{"w": ' + b"9" * 5000 + b"}", "it is not JSON"),
    ],
)
def test_bad_json_is_refused(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "t.json").write_bytes(data)
    with pytest.raises(SceneError, match=text):
        read_transforms(tmp_path / "t.json")


def test_size_and_frame_count_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = {"transform_matrix": IDENTITY}
    monkeypatch.setattr(transforms, "FRAME_LIMIT", 2)
    assert len(read(tmp_path / "t.json", frames=[frame] * 2)) == 2
    with pytest.raises(SceneError, match="it has 3 frames; 2 are read"):
        read(tmp_path / "t.json", frames=[frame] * 3)
    with (tmp_path / "big.json").open("wb") as file:
        file.truncate(transforms.FILE_LIMIT + 1)  # a sparse file
    with pytest.raises(SceneError, match="it is larger than 64 MiB"):
        read_transforms(tmp_path / "big.json")
    with pytest.raises(SceneError, match="there is no such file"):
        read_transforms(tmp_path / "none.json")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    camera = Camera.from_fov(60, 64, 48)
    skewed = camera.px_from_cam.clone()
    skewed[0, 1] = 0.5
    with pytest.raises(SceneError, match="0 cameras and 0 file names"):
        write_transforms(tmp_path / "t.json", [])
    with pytest.raises(SceneError, match="1 cameras and 2 file names"):
        write_transforms(tmp_path / "t.json", [camera], ["a", "b"])
    with pytest.raises(SceneError, match=r"camera 1 cannot be written.*\n.*skew"):
        bent = Camera(skewed, camera.cam_from_world, 64, 48)
        write_transforms(tmp_path / "t.json", [camera, bent])
    assert list(tmp_path.iterdir()) == []


def test_the_log_says_what_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "scenegen"):
        write_transforms(tmp_path / "t.json", [Camera.from_fov(60, 64, 48)])
    assert "1 cameras; no pictures" in caplog.text
