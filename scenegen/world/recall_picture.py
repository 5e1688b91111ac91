"""One picture of what the memory says about a view: target, evidence, chosen views, reasons.

Blocks are images that are as high as what they hold, put side by side or below each other: nothing
can run over or be cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from scenegen.export.images import to_bytes
from scenegen.world.recall import Recall
from spatial_memory import View
from spatial_memory.explain import HIDDEN, UNEXPLAINED, UNMAPPED

WIDTH, MARGIN, GAP = 1600, 48, 28
"""Size of the picture, of its margin and of the space between blocks, in pixels."""
PANEL_HEIGHT, THUMB_HEIGHT, SMALL_SIDE = 640, 300, 200
"""Largest height of the two panels and of a chosen view, and side of another view, in pixels."""
COLUMNS = 4
FRAME = 8
TITLE, HEADING, BODY = 40, 26, 21
"""Sizes of text, in pixels."""
PAPER, INK, QUIET = (250, 250, 247), (28, 30, 33), (98, 102, 108)
COLORS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (148, 103, 189),
    (140, 140, 20),
)
"""One per chosen view (the first six by Okabe and Ito: told apart by colour-blind eyes too)."""
DARK, LIGHT, MIDDLE = (118, 118, 122), (214, 214, 212), (166, 158, 150)
"""Mapped but explained by none of the chosen views; nothing mapped; mapped behind the unknown."""
TINT = 0.7
"""Strength of the colours over the faded render, 0 to 1."""
FADED = 0.7
"""How far what a view does not know is faded to paper, 0 to 1."""


def draw_recall(recall: Recall) -> Float[Tensor, "h w 3"]:
    """Draw it: sRGB, 0 to 1, WIDTH pixels wide."""
    inner = WIDTH - 2 * MARGIN
    chosen, choice = recall.choice.view_ids, recall.choice
    of_all = f"{len(chosen)} of {choice.asked} views are chosen"
    summary = (
        f"{recall.look.hole_share:.1%} of it is unknown. {of_all}; together they have seen "
        f"{choice.coverage:.0%} of it."
    )
    half = (inner - GAP) // 2
    blocks = [
        _stacked([_text(recall.title.capitalize(), inner, TITLE),
                  _text(summary, inner, HEADING, QUIET)], 10),
        _beside([_target(recall, half), _evidence(recall, half)]),
    ]  # fmt: skip
    if chosen:
        column = (inner - (COLUMNS - 1) * GAP) // COLUMNS
        faded = _text("Faded: what a view shows but does not hold itself", inner, BODY, QUIET)
        cards = [_chosen(recall, rank, column) for rank in range(len(chosen))]
        blocks += [
            _stacked([_text("Chosen, best first", inner, HEADING), faded], 4),
            *_rows(cards, COLUMNS),
        ]
    if recall.others:
        cards = [_other(recall, view_id, half) for view_id in recall.others]
        blocks += [_text("Not chosen, though they have seen some of it", inner, HEADING),
                   *_rows(cards, 2)]  # fmt: skip
    body = _stacked(blocks, GAP)
    page = Image.new("RGB", (WIDTH, body.height + 2 * MARGIN), PAPER)
    page.paste(body, (MARGIN, MARGIN))
    return torch.from_numpy(np.array(page)).float() / 255


def _target(recall: Recall, width: int) -> Image.Image:
    caption = _text("As the world renders it; gray where nothing is known", width, BODY, QUIET)
    unknown = torch.tensor(LIGHT) / 255
    rgb = torch.where(recall.look.hole[..., None], unknown, recall.look.rgb)
    return _stacked([_fitted(_image(rgb), width, PANEL_HEIGHT), caption], 10)


def evidence_overlay(
    recall: Recall,
) -> tuple[Float[Tensor, "h w 3"], list[tuple[tuple[int, int, int], str]]]:
    """The map of evidence in colours over the faded render, and what each colour means."""
    ranks = range(len(recall.choice.view_ids))
    names = [(rank, _color(rank), f"view {recall.choice.view_ids[rank]}") for rank in ranks]
    names.append((UNEXPLAINED, DARK, "mapped, but seen by none of them"))
    names.append((UNMAPPED, LIGHT, "nothing mapped: sky or unknown"))
    names.append((HIDDEN, MIDDLE, "mapped, but behind space that no view has seen"))
    gray = recall.look.rgb.mean(-1, keepdim=True).expand(-1, -1, 3)
    faded = torch.where(recall.look.hole[..., None], 1.0, 0.5 + 0.5 * gray)
    tints = torch.zeros_like(faded)
    for value, color, _ in names:
        tints[recall.evidence == value] = torch.tensor(color) / 255
    legend = [
        (color, f"{name}  {recall.share(value):.1%}")
        for value, color, name in names
        if recall.share(value) > 0
    ]
    return (1 - TINT) * faded + TINT * tints, legend


def _evidence(recall: Recall, width: int) -> Image.Image:
    """The map in colours, and what each colour means."""
    overlay, legend = evidence_overlay(recall)
    picture, labels = _image(overlay), [_label(color, words) for color, words in legend]
    caption = _text("Which of the chosen views explains each pixel first", width, BODY, QUIET)
    parts = [_fitted(picture, width, PANEL_HEIGHT), caption, _flowing(labels, width)]
    return _stacked(parts, 10)


def _chosen(recall: Recall, rank: int, width: int) -> Image.Image:
    view_id = recall.choice.view_ids[rank]
    view = recall.views[view_id]
    picture = _fitted(_known(view), width - 2 * FRAME, THUMB_HEIGHT)
    framed = Image.new("RGB", (picture.width + 2 * FRAME, picture.height + 2 * FRAME), _color(rank))
    framed.paste(picture, (FRAME, FRAME))
    parts = [framed, _text(f"{rank + 1}.  view {view_id}, {view.provenance}", width, HEADING)]
    if recall.choice.gains:
        gain, votes = recall.choice.gains[rank], recall.choice.votes[rank]
        parts.append(_text(f"gain {gain:.1%}, {votes:,.1f} votes", width, BODY))
    parts.append(_text(recall.choice.reasons[view_id], width, BODY, QUIET))
    return _stacked(parts, 8)


def _other(recall: Recall, view_id: int, width: int) -> Image.Image:
    view = recall.views[view_id]
    picture = _fitted(_known(view), SMALL_SIDE, SMALL_SIDE)
    room = width - SMALL_SIDE - GAP
    words = [
        _text(f"view {view_id}, {view.provenance}", room, HEADING),
        _text(recall.choice.reasons[view_id], room, BODY, QUIET),
    ]
    return _beside([_padded(picture, SMALL_SIDE), _stacked(words, 8)])


def _known(view: View) -> Image.Image:
    """A view, with what it does not know faded."""
    paper = torch.tensor(PAPER) / 255
    faded = (1 - FADED) * view.rgb + FADED * paper
    return _image(torch.where(view.known[..., None], view.rgb, faded))


def _color(rank: int) -> tuple[int, int, int]:
    return COLORS[rank % len(COLORS)]


def _image(rgb: Float[Tensor, "h w 3"]) -> Image.Image:
    return Image.fromarray(to_bytes(rgb))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _text(text: str, width: int, size: int, color: tuple[int, int, int] = INK) -> Image.Image:
    """A paragraph, wrapped at spaces to ``width`` pixels."""
    font, lines = _font(size), [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    pitch = round(1.3 * size)
    block = Image.new("RGB", (width, pitch * len(lines)), PAPER)
    for row, line in enumerate(lines):
        ImageDraw.Draw(block).text((0, row * pitch), line, font=font, fill=color)
    return block


def _label(color: tuple[int, int, int], text: str) -> Image.Image:
    """A patch of colour and what it means, in one line."""
    font, pitch = _font(BODY), round(1.3 * BODY)
    block = Image.new("RGB", (pitch + 10 + round(font.getlength(text)) + 1, pitch), PAPER)
    draw = ImageDraw.Draw(block)
    draw.rectangle((0, 2, pitch - 4, pitch - 2), fill=color)
    draw.text((pitch + 8, 0), text, font=font, fill=INK)
    return block


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture in the largest size that fits into the room."""
    zoom = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * zoom)), max(1, round(picture.height * zoom)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _padded(block: Image.Image, width: int) -> Image.Image:
    wide = Image.new("RGB", (max(width, block.width), block.height), PAPER)
    wide.paste(block, (0, 0))
    return wide


def _stacked(blocks: Sequence[Image.Image], gap: int) -> Image.Image:
    height = sum(block.height for block in blocks) + gap * (len(blocks) - 1)
    page, top = Image.new("RGB", (max(block.width for block in blocks), height), PAPER), 0
    for block in blocks:
        page.paste(block, (0, top))
        top += block.height + gap
    return page


def _beside(blocks: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    width = sum(block.width for block in blocks) + gap * (len(blocks) - 1)
    page, left = Image.new("RGB", (width, max(block.height for block in blocks)), PAPER), 0
    for block in blocks:
        page.paste(block, (left, 0))
        left += block.width + gap
    return page


def _rows(cards: Sequence[Image.Image], columns: int) -> list[Image.Image]:
    return [_beside(cards[start : start + columns]) for start in range(0, len(cards), columns)]


def _flowing(labels: Sequence[Image.Image], width: int) -> Image.Image:
    """Labels side by side, and on the next line where there is no room."""
    lines: list[list[Image.Image]] = [[]]
    for label in labels:
        if lines[-1] and sum(done.width + GAP for done in lines[-1]) + label.width > width:
            lines.append([])
        lines[-1].append(label)
    return _stacked([_beside(line) for line in lines], 8)
