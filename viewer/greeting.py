"""The photograph, shown before anything is loaded that could make a world of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import viser
from jaxtyping import UInt8

from scenegen.image.focal import default_fov
from scenegen.image.picture import Picture
from viewer import navigation
from viewer.navigation import LOOK_AHEAD, Pose
from viewer.server import LocalServer
from viewer.telling import plain


@dataclass(frozen=True, eq=False)
class Greeting:
    """A photograph in the page, and in the scene in front of where it was taken."""

    picture: Picture
    fov: float
    """Its horizontal field of view, in degrees."""
    image: viser.ImageHandle
    note: viser.GuiMarkdownHandle

    def remove(self) -> None:
        """Take it away: there is something better. Twice is fine."""
        self.image.remove()
        self.done()

    def done(self) -> None:
        """Take the note away: others say what goes on."""
        self.note.visible = False


def greet(server: LocalServer, picture: Picture, fov: float | None = None) -> Greeting:
    """Show a photograph to everyone who comes.

    Args:
        server: Who shows it.
        picture: The photograph.
        fov: Horizontal field of view, in degrees; as its file says when left out.
    """
    height, width = picture.rgb.shape[:2]
    fov = fov or picture.fov_degrees or default_fov(width, height)
    half = math.tan(0.5 * math.radians(fov)) * height / width
    ahead, up = np.array([0.0, 0.0, LOOK_AHEAD]), np.array([0.0, -1.0, 0.0])
    pose = Pose(np.zeros(3), ahead, up, 2.0 * math.atan(half))
    rgb = levels(picture)
    server.first_sight.show(rgb)
    navigation.set_home(server, pose)
    image = navigation.add_picture(server, rgb, pose)
    note = server.gui.add_markdown(f"**{plain(picture.name)}**\n\nWaking up ...")
    server.gui.set_panel_label("Waking up ...")
    return Greeting(picture, fov, image, note)


def levels(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """Its colours as 0 to 255."""
    return (picture.rgb * 255.0).round().astype(np.uint8)
