// Draws splats in packs of 32, where the processor draws.
//
// viser draws each splat as an instance of its own. Without graphics chip an instance costs far more
// than what is in it: 15 microseconds instead of 2 (SwiftShader, of the processor's time). So the
// shader is changed to find 32 indices in each instance, and its draw calls to ask for a 32nd of
// the instances. The picture stays the same; a shader that is not as expected stays as it is.
const drawInPacks = () => {
  const PACK = 32, CORNERS = [0, 2, 1, 0, 3, 2];
  const INDEX = "attribute uint sortedIndex;", BEGIN = /void main ?\(\) ?\{/, CORNER = /\bposition\.(?=[xy])/g;
  const SLOTS = ["sortedIndex", "sorted1", "sorted2", "sorted3", "sorted4", "sorted5", "sorted6", "sorted7"];
  const MAIN = `void main() {
    int slot = gl_VertexID >> 4, corner = gl_VertexID & 3;
    uvec4 four = ${SLOTS.slice(0, 7).map((name, k) => `slot == ${k} ? ${name} : `).join("")}sorted7;
    uint splat = four[(gl_VertexID >> 2) & 3];
    vec2 reach = 2.0 * vec2(float((corner + 1) & 2) - 1.0, float(corner & 2) - 1.0);`;
  const GL = WebGL2RenderingContext.prototype;
  const { shaderSource, attachShader, drawElementsInstanced } = GL;
  const changed = new WeakSet(), kits = new WeakMap();

  GL.shaderSource = function (shader, text) {
    if (text.includes(INDEX) && text.search(BEGIN) > 0 && text.search(CORNER) > 0) {
      changed.add(shader);
      text = text.replace(/\bsortedIndex\b/g, "splat").replace(CORNER, "reach.")
        .replace(INDEX.replace("sortedIndex", "splat"), `attribute uvec4 ${SLOTS.join(", ")};`)
        .replace(BEGIN, MAIN);
    }
    shaderSource.call(this, shader, text);
  };
  GL.attachShader = function (program, shader) {
    if (changed.has(shader)) changed.add(program);
    attachShader.call(this, program, shader);
  };

  const kitOf = (gl, program) => {
    if (!kits.has(program)) {
      const slots = SLOTS.map((name) => gl.getAttribLocation(program, name));
      const kit = { slots, arrays: gl.createVertexArray(), rest: gl.createBuffer() };
      gl.bindVertexArray(kit.arrays);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
      const ids = Array.from({ length: PACK }, (_, k) => CORNERS.map((corner) => 4 * k + corner));
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new Uint16Array(ids.flat()), gl.STATIC_DRAW);
      for (const slot of slots) {
        gl.enableVertexAttribArray(slot);
        gl.vertexAttribDivisor(slot, 1);
      }
      gl.bindBuffer(gl.ARRAY_BUFFER, kit.rest);
      gl.bufferData(gl.ARRAY_BUFFER, 4 * PACK, gl.DYNAMIC_DRAW);
      kits.set(program, kit);
    }
    return kits.get(program);
  };
  GL.drawElementsInstanced = function (mode, count, type, offset, splats) {
    const program = this.getParameter(this.CURRENT_PROGRAM);
    if (!changed.has(program)) {
      drawElementsInstanced.call(this, mode, count, type, offset, splats);
      return;
    }
    const before = this.getParameter(this.VERTEX_ARRAY_BINDING);
    const first = this.getAttribLocation(program, "sortedIndex");
    const sorted = this.getVertexAttrib(first, this.VERTEX_ATTRIB_ARRAY_BUFFER_BINDING);
    const { slots, arrays, rest } = kitOf(this, program);
    const draw = (buffer, start, each, packs) => {
      this.bindBuffer(this.ARRAY_BUFFER, buffer);
      slots.forEach((slot, k) => this.vertexAttribIPointer(
        slot, 4, this.UNSIGNED_INT, 4 * PACK, 4 * start + 16 * k));
      drawElementsInstanced.call(this, mode, 6 * each, this.UNSIGNED_SHORT, 0, packs);
    };
    this.bindVertexArray(arrays);
    // The farthest come first. Those that fill no pack are read from a buffer that has room for one.
    const over = splats % PACK;
    this.bindBuffer(this.COPY_READ_BUFFER, sorted);
    this.bindBuffer(this.COPY_WRITE_BUFFER, rest);
    this.copyBufferSubData(this.COPY_READ_BUFFER, this.COPY_WRITE_BUFFER, 0, 0, 4 * over);
    if (over > 0) draw(rest, 0, over, 1);
    if (splats >= PACK) draw(sorted, over, PACK, Math.floor(splats / PACK));
    this.bindVertexArray(before);
  };
};
