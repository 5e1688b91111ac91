"""What the graphics processor runs: sun or lamp with shadows, sky, haze, dark room corners."""

from __future__ import annotations

LAMPS = 3
"""Lamps without shadows that the shader knows."""
SHADOW_SIDE = 1024
"""Side of the shadow map, in its pixels."""

CORNER = """#version 330
in vec3 place; in vec3 normal; in vec3 colour; in vec2 uv;
uniform mat4 cam_from_world, clip_from_cam, shadow_from_world;
out vec3 n, c, w; out vec2 t; out float z; out vec4 s;
void main() {
  vec4 p = cam_from_world * vec4(place, 1); z = p.z;
  n = normal; c = colour; t = uv; w = place; s = shadow_from_world * vec4(place + 0.02 * normal, 1);
  gl_Position = clip_from_cam * p;
}"""
_ALPHA = """
uniform sampler2D picture, mask; uniform int masked;
float alpha(vec2 t, float own) { return masked == 1 ? texture(mask, t).r : own; }
"""
_CUT = "if (alpha(t, {alpha}) < 0.5) discard;"
"""Kept out of what draws solid surfaces: with it, hidden pixels cannot be skipped early."""


def depth(cut: bool) -> str:
    """Writes z; with holes where alpha is below one half."""
    discard = _CUT.format(alpha="texture(picture, t).a") if cut else ""
    return f"""#version 330
in float z; in vec2 t; layout(location = 0) out float depth;
{_ALPHA}
void main() {{ {discard} depth = z; }}"""


def colour(cut: bool) -> str:
    """Writes linear colours; with holes where alpha is below one half."""
    return _COLOUR.replace("CUT", _CUT.format(alpha="p.a") if cut else "")


_SKY = """
uniform vec3 sky_top, sky_low, main_colour; uniform vec4 main_light; uniform float clouds;
float hash(vec2 p) { return fract(sin(dot(p, vec2(127.1, 311.7))) * 43758.5453); }
float noise(vec2 p) {
  vec2 i = floor(p), f = fract(p); f = f * f * (3. - 2. * f);
  float low = mix(hash(i), hash(i + vec2(1, 0)), f.x);
  return mix(low, mix(hash(i + vec2(0, 1)), hash(i + 1.), f.x), f.y);
}
vec3 sky(vec3 ray) {
  float up = max(-ray.y, 0.);
  vec3 air = mix(sky_low, sky_top, pow(up, 0.55));
  if (main_light.w < 0.5) {
    float near_sun = max(dot(ray, main_light.xyz), 0.);
    air += main_colour * (0.25 * pow(near_sun, 24.) + 4. * smoothstep(0.9993, 0.9997, near_sun));
  }
  vec2 p = ray.xz / (up + 0.12) * 1.6; float sum = 0., weight = 0.5;
  for (int i = 0; i < 5; i++) { sum += weight * noise(p); p = p * 2.1 + 3.7; weight *= 0.5; }
  float cover = smoothstep(1. - clouds, 1.15 - clouds * 0.7, sum + 0.15) * smoothstep(0., 0.1, up);
  vec3 cloud = (0.5 * main_colour + 0.9 * sky_low) * mix(0.75, 1.1, noise(p * 0.3));
  return mix(air, cloud, clouds > 0. ? cover : 0.);
}
"""
_COLOUR = f"""#version 330
in vec3 n, c, w; in vec2 t; in float z; in vec4 s; layout(location = 0) out vec4 rgb;
uniform int look, indoors; uniform float haze;
uniform vec3 eye, above, below, wall_low, wall_high;
uniform vec3 lamp[{LAMPS}], lamp_colour[{LAMPS}]; uniform sampler2DShadow shadow;
{_ALPHA}{_SKY}
float lit() {{
  vec3 q = s.xyz / s.w * 0.5 + 0.5;
  if (s.w <= 0. || any(lessThan(q, vec3(0))) || any(greaterThan(q, vec3(1))))
    return main_light.w < 0.5 ? 1. : 0.35;
  float sum = 0., texel = 1.3 / {SHADOW_SIDE}.;
  for (int i = 0; i < 4; i++)
    sum += texture(shadow, vec3(q.xy + texel * (vec2(i & 1, i >> 1) - 0.5), q.z - 0.0008));
  return sum / 4.;
}}
void main() {{
  vec4 p = texture(picture, t);
  CUT
  vec3 albedo = pow(p.rgb, vec3(2.2)) * c, view = normalize(eye - w), m = normalize(n);
  if (dot(m, view) < 0.) m = -m;
  if (look == 1) m = normalize(0.4 * m + vec3(0, -1, 0));
  float corner = 1.;
  if (indoors == 1) {{
    vec3 gap = max(min(w - wall_low, wall_high - w), 0.);
    vec3 dark = 0.38 * exp(-gap / 0.3) * (1. - abs(m));
    corner = (1. - dark.x) * (1. - dark.y) * (1. - dark.z);
  }}
  vec3 light = mix(below, above, 0.5 - 0.5 * m.y) * corner, shine = vec3(0);
  vec3 to_main = main_light.w < 0.5 ? main_light.xyz : main_light.xyz - w;
  float fall = main_light.w < 0.5 ? 1. : 1. / (dot(to_main, to_main) + 0.3);
  to_main = normalize(to_main);
  float open = lit();
  light += main_colour * fall * max(dot(m, to_main), 0.) * open;
  shine += main_colour * fall * open * pow(max(dot(m, normalize(to_main + view)), 0.), 40.);
  for (int i = 0; i < {LAMPS}; i++) {{
    vec3 to = lamp[i] - w; float square = dot(to, to); to *= inversesqrt(square);
    light += lamp_colour[i] * (0.15 + 0.85 * max(dot(m, to), 0.)) * corner / (square + 0.3);
  }}
  vec3 linear = look == 2 ? albedo * 1.6 : albedo * light + (look == 0 ? 0.04 : 0.) * shine;
  float through = exp(-haze * length(eye - w));
  rgb = vec4(mix(sky(normalize(vec3(w.x - eye.x, -0.02, w.z - eye.z))), linear, through), 1);
}}"""
SKY_CORNER = """#version 330
in vec2 place; uniform mat4 ray_from_clip; out vec3 ray;
void main() {
  gl_Position = vec4(place, 0.999999, 1); ray = (ray_from_clip * vec4(place, 1, 0)).xyz;
}"""
SKY_COLOUR = f"""#version 330
in vec3 ray; layout(location = 0) out vec4 rgb;
{_SKY}
void main() {{ rgb = vec4(sky(normalize(ray)), 1); }}"""
