"""Outpainters of the hub: tiny random pipelines in a folder, offline."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from test_world import SETTINGS, write_photo

import scenegen
from renderers import SceneError
from scenegen import outpaint

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of other packages, about one another
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("diffusers", "transformers")),
        reason="diffusers or transformers is not installed: pip install 'scenegen-worlds[hub]'",
    ),
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def tokenizer(folder: Path):
    """CLIP's tokenizer with one token per byte."""
    from transformers import CLIPTokenizer

    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    return CLIPTokenizer(*files, model_max_length=77), len(words)


@pytest.fixture(scope="module")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion XL of a few thousand random weights, as the hub would hold it."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    words, count = tokenizer(folder / "words")
    text = CLIPTextConfig(
        vocab_size=count,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=count - 2,
        eos_token_id=count - 1,
        pad_token_id=count - 1,
        projection_dim=32,
        hidden_act="gelu",
    )
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=32,
        in_channels=9,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=8 * 6 + 32,
        cross_attention_dim=64,
        norm_num_groups=8,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=[16, 32],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )
    pipeline = diffusers.StableDiffusionXLInpaintPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(),
        requires_aesthetics_score=False,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps on small pictures."""
    from dataclasses import replace

    from scenegen.outpaint import diffusion

    for name, kind in diffusion._KINDS.items():
        monkeypatch.setitem(diffusion._KINDS, name, replace(kind, steps=2, side=64))


def half_known() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(1))
    known = torch.ones(48, 64, dtype=torch.bool)
    known[:, 40:] = False
    return image, known


@pytest.mark.usefixtures("small")
def test_seed_and_prompt_make_the_picture(tiny_sdxl: Path) -> None:
    image, known = half_known()
    name = f"sdxl:{tiny_sdxl}"

    def filled(seed: int, prompt: str | None = None) -> torch.Tensor:
        return outpaint.fill(image, known, seed=seed, backend=name, prompt=prompt)

    one, same, other = filled(3), filled(3), filled(4)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(one[known], image[known]) and torch.isfinite(one).all()
    assert not torch.equal(one, filled(3, "a red barn"))


@pytest.mark.usefixtures("small")
def test_a_world_is_made_with_a_prompt_that_it_keeps(tiny_sdxl: Path, tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "house.png", 128, 96)
    settings = {**SETTINGS, "outpaint": f"sdxl:{tiny_sdxl}", "prompt": "a red barn"}
    world = scenegen.create(photo, tmp_path / "w", extent="photo", **settings)
    list(world.grow([world.camera0.moved(yaw_degrees=12)]))
    assert world.settings["prompt"] == "a red barn"
    assert world.settings["outpaint"] == f"sdxl:{tiny_sdxl.resolve()}"
    assert world.steps[1].info["invented"] > 0.05


def test_backends_without_words_refuse_a_prompt(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="'patch' takes no prompt"):
        outpaint.fill(*half_known(), backend="patch", prompt="a red barn")
    settings = {**SETTINGS, "prompt": "a red barn"}
    photo = write_photo(tmp_path / "house.png", 128, 96)
    with pytest.raises(SceneError, match="takes no prompt"):
        scenegen.create(photo, tmp_path / "w", extent="photo", **settings)
    assert not (tmp_path / "w").exists()


def test_what_is_no_model_is_said(tiny_sdxl: Path, tmp_path: Path) -> None:
    image, known = half_known()
    with pytest.raises(SceneError, match="only these take weights of your choice: flux, sdxl"):
        outpaint.fill(image, known, backend=f"patch:{tmp_path}")
    with pytest.raises(SceneError, match="is not in the cache of the hub"):
        outpaint.choose_outpainter("sdxl:someone/something")
    with pytest.raises(SceneError, match="settings cannot be read"):
        outpaint.fill(image, known, backend=f"sdxl:{tmp_path}")
    with pytest.raises(SceneError, match="describes StableDiffusionXLInpaintPipeline"):
        outpaint.fill(image, known, backend=f"flux:{tiny_sdxl}")
    (tmp_path / "model_index.json").write_text((tiny_sdxl / "model_index.json").read_text())
    with pytest.raises(SceneError, match="pickles are not opened"):
        outpaint.fill(image, known, backend=f"sdxl:{tmp_path}")
