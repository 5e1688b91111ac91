"""The CPU renderer: a tile rasteriser compiled by numba. Importing this package loads nothing.

A picture is made in four steps, one file each:
  pack.py     splats -> blocks of plain numbers, once per set of splats
  project.py  blocks -> records: what a splat looks like from one camera
  bin.py      records -> nearest first, then one list per tile of the image
  raster.py   tile lists -> pixels
renderer.py joins them, kernel.py says how kernels are compiled.
"""
