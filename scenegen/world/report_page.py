"""A report as one HTML page, pictures included: it can be mailed, and opens offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from scenegen.export.atomic import atomic_write
from scenegen.world.report import Measure, Picture

if TYPE_CHECKING:
    from scenegen.world.world import World

WIDTH = 640
"""Pictures are shrunk to this width, in pixels."""
QUALITY = 88
"""Of their JPEG."""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
.missed {{ color: #a40000 }} .reached {{ color: #006400 }}
.views {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1rem }}
figure {{ margin: 0 }} img {{ width: 100%; display: block }}
</style></head><body>
<h1>{title}</h1>
<p>{made}</p>
<table><tr><th>measure</th><th>value</th><th>target</th><th>what was compared</th></tr>
{rows}
</table>
<h2>Views</h2>
<div class="views">
{figures}
</div>
</body></html>
"""


def write_page(
    path: Path, world: World, measures: Sequence[Measure], pictures: Sequence[Picture]
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The file.
        world: What was measured.
        measures: The numbers, in order.
        pictures: The views to show.

    Raises:
        SceneError: The file cannot be written.
    """
    settings = world.settings
    made = (
        f"From {settings.get('photo', 'a photograph')}: {len(world.steps)} steps, "
        f"{len(world.splats):,} splats. Depth by {settings.get('depth')}, "
        f"outpainting by {settings.get('outpaint')}, seed {settings.get('seed')}."
    )
    page = PAGE.format(
        title=escape(f"Report of {world.folder.name}"),
        made=escape(made),
        rows="\n".join(_row(one) for one in measures),
        figures="\n".join(_figure(one) for one in pictures),
    )
    with atomic_write(path) as part:
        part.write_text(page, encoding="utf-8")


def _row(one: Measure) -> str:
    target = ""
    if one.target is not None:
        sign = "&ge;" if one.higher_is_better else "&le;"
        kind = "reached" if one.reached else "missed"
        target = f'<span class="{kind}">{sign} {one.target:,g}: {kind}</span>'
    value = f"{one.value:,.0f}" if one.value >= 1e4 else f"{one.value:.3g}"
    return (
        f'<tr><td>{escape(one.name)}</td><td class="number">{value} {escape(one.unit)}</td>'
        f"<td>{target}</td><td>{escape(one.about)}</td></tr>"
    )


def _figure(one: Picture) -> str:
    data = base64.b64encode(_jpeg(one.rgb)).decode()
    title = escape(one.title)
    return (
        f'<figure><img alt="{title}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{title}</figcaption></figure>"
    )


def _jpeg(rgb: Float[Tensor, "h w 3"]) -> bytes:
    levels = (rgb.detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
    image = Image.fromarray(levels)
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)))
    kept = io.BytesIO()
    image.save(kept, "JPEG", quality=QUALITY)
    return kept.getvalue()
