"""What Blender makes of a mesh file: run by a Python that has ``bpy``, on its own.

    python in_blender.py FILE PICTURE.png WIDTH HEIGHT FOV_X_DEGREES

Imports the file as a user does, with nothing changed; looks from the origin along Blender's +y,
z up; and prints what was imported as one line of JSON that begins with "imported". The material of
a .glb is used as it is; .obj and .ply bring colours but no material, so one is made of them.
"""

import json
import math
import sys

import bpy

path, picture, width, height, fov = sys.argv[1:6]
bpy.ops.wm.read_factory_settings(use_empty=True)
{
    "glb": bpy.ops.import_scene.gltf,
    "obj": bpy.ops.wm.obj_import,
    "ply": bpy.ops.wm.ply_import,
}[path.rsplit(".", 1)[1]](filepath=path)
meshes = [thing for thing in bpy.data.objects if thing.type == "MESH"]
for thing in meshes:
    if not thing.data.materials:
        material = bpy.data.materials.new("colours")
        if material.node_tree is None:  # before Blender 5 a material had none from the start
            material.use_nodes = True
        nodes, links = material.node_tree.nodes, material.node_tree.links
        nodes.clear()
        colors = nodes.new("ShaderNodeVertexColor")
        colors.layer_name = thing.data.color_attributes[0].name
        light, out = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeOutputMaterial")
        links.new(colors.outputs["Color"], light.inputs["Color"])
        links.new(light.outputs["Emission"], out.inputs["Surface"])
        thing.data.materials.append(material)

lens = bpy.data.cameras.new("eye")
lens.sensor_fit, lens.angle_x, lens.clip_start = "HORIZONTAL", math.radians(float(fov)), 0.05
eye = bpy.data.objects.new("eye", lens)
eye.rotation_euler = (math.pi / 2, 0, 0)
scene = bpy.context.scene
scene.collection.objects.link(eye)
scene.camera = eye
scene.render.engine = "CYCLES"
scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.device = 4, False, "CPU"
scene.cycles.max_bounces = 0
scene.render.resolution_x, scene.render.resolution_y = int(width), int(height)
scene.view_settings.view_transform = "Standard"
scene.render.filepath = picture
bpy.ops.render.render(write_still=True)
corners = [thing.matrix_world @ v.co for thing in meshes for v in thing.data.vertices]
found = {
    "vertices": len(corners),
    "triangles": sum(len(thing.data.polygons) for thing in meshes),
    "low": [min(c[k] for c in corners) for k in range(3)],
    "high": [max(c[k] for c in corners) for k in range(3)],
}
print("imported " + json.dumps(found))  # noqa: T201
