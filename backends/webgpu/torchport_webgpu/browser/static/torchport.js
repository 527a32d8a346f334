// Runs a model that `torchport build --web` wrote, with the browser's WebGPU.
//
//   import { open } from "./torchport.js";
//   const model = await open("./");
//   const [logits] = await model.run([new Float32Array(model.inputs[0].count)]);
//
// Results are { dtype, shape, data }; data is contiguous: Float32Array of every float, BigInt64Array of int64 and so on.

const SCHEMA = "torchport.page/1";
const SLOT = 256; // bytes that offsets of uniform blocks are multiples of
const BATCH = 64; // launches that are submitted together
const BYTES = {
  float32: 4, float16: 2, bfloat16: 2, float64: 8, int64: 8, int32: 4, int16: 2, int8: 1, uint8: 1, bool: 1,
};
const STORED = { F64: "float64", F32: "float32", F16: "float16", BF16: "bfloat16", I64: "int64", I32: "int32",
  I16: "int16", I8: "int8", U8: "uint8", BOOL: "bool" };

/** What is wrong and what to do about it, in one sentence for people. */
export class ModelError extends Error {}

/**
 * Load the model in a folder and build its kernels.
 * sha256: the digest of model.json, if another model must not be taken. progress: is called with a text at each step.
 */
export async function open(folder, { sha256, progress = () => {} } = {}) {
  const { adapter, about: described } = await adapterHere();
  progress("reading the model");
  const files = new Files(new URL(folder, document.baseURI));
  const about = JSON.parse(text(await files.read("model.json", sha256)));
  if (about.schema !== SCHEMA) throw new ModelError(`model.json has schema ${about.schema}, not ${SCHEMA}: build it again`);
  files.known = about.files;
  for (const [name, needed] of Object.entries(about.limits)) {
    if (adapter.limits[name] < needed) {
      throw new ModelError(`the model needs ${name} of ${needed}, and this adapter (${described}) has ${adapter.limits[name]}`);
    }
  }
  const device = await adapter.requestDevice({ requiredLimits: about.limits });
  const model = new Model(device, about, files, described);
  try {
    await model.prepare(progress);
  } catch (error) {
    device.destroy();
    throw error;
  }
  return model;
}

/** The adapter, and its name. */
async function adapterHere() {
  if (!navigator.gpu) {
    const why = window.isSecureContext ? "this browser has no WebGPU, or it is switched off" :
      "browsers have WebGPU for https:// and http://localhost only";
    throw new ModelError(`there is no WebGPU here: ${why}`);
  }
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new ModelError("WebGPU finds no adapter: the browser does not use this machine's GPU");
  const { vendor, architecture, device, description } = adapter.info;
  return { adapter, about: [description || device, vendor, architecture].filter(Boolean).join(", ") || "unnamed" };
}

/** Files of a folder, each compared with its digest. */
class Files {
  constructor(root) {
    this.root = root;
    this.known = {};
  }

  async read(name, sha256 = this.known[name]?.sha256) {
    let found;
    for (const cache of sha256 ? ["default", "reload"] : ["reload"]) { // what the browser has kept may be of another build
      const data = await this.#fetched(name, cache);
      if (!sha256) return data;
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
      found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
      if (found === sha256) return data;
    }
    throw new ModelError(`${name} was changed since it was built (its digest is ${found})`);
  }

  async #fetched(name, cache) {
    try {
      const answer = await fetch(new URL(name, this.root), { cache });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      return await answer.arrayBuffer();
    } catch (error) {
      throw new ModelError(`${name} cannot be read: ${error.message}`);
    }
  }

  /** The tensors of a file in the format safetensors. */
  async tensors(name) {
    const data = await this.read(name);
    const length = Number(new DataView(data).getBigUint64(0, true));
    const header = JSON.parse(text(data.slice(8, 8 + length)));
    const found = {};
    for (const [key, { dtype, shape, data_offsets: [start, end] }] of Object.entries(header)) {
      if (key === "__metadata__") continue;
      found[key] = { dtype: STORED[dtype], shape, bytes: new Uint8Array(data, 8 + length + start, end - start) };
    }
    return found;
  }
}

const text = (data) => new TextDecoder().decode(data);
const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

class Model {
  #device;
  #about;
  #files;
  #lost; // a promise that is rejected when the device is lost
  #gone = null; // why, once it is
  #buffers = [];
  #steps = [];
  #copies = [];
  #last = Promise.resolve();

  constructor(device, about, files, adapter) {
    this.#device = device;
    this.#about = about;
    this.#files = files;
    this.adapter = adapter;
    this.title = about.title;
    this.inputs = about.inputs.map(({ name, dtype, shape }) => ({ name, dtype, shape, count: product(shape) }));
    this.#lost = device.lost.then(({ reason, message }) => {
      this.#gone = reason === "destroyed" ? "the model was closed" : `the GPU was lost (${message || reason}): reload the page`;
      throw new ModelError(this.#gone);
    });
    this.#lost.catch(() => {}); // whoever waits for the device hears of it
  }

  /** Numbers about the model, for people. */
  get facts() {
    const { shaders, launches, buffers, files, torch, torchport } = this.#about;
    const weights = files["weights.safetensors"].bytes;
    const memory = buffers.reduce((a, b) => a + b, 0);
    return { kernels: shaders.length, launches: launches.length, weights, memory, torch, torchport, fused: this.fused };
  }

  /** Free its memory; it cannot run any more. */
  close() {
    this.#device.destroy();
  }

  /** Wait for something of the device; an error of its own, or its loss, is a ModelError. */
  async #checked(what, work) {
    if (this.#gone) throw new ModelError(this.#gone);
    const kinds = ["internal", "out-of-memory", "validation"];
    kinds.forEach((kind) => this.#device.pushErrorScope(kind));
    let found, failure;
    try {
      found = await Promise.race([work(), this.#lost]);
    } catch (error) {
      failure = error;
    }
    if (this.#gone) throw new ModelError(this.#gone);
    const errors = await Promise.all(kinds.map(() => this.#device.popErrorScope()));
    const error = errors.find(Boolean) || failure;
    if (error) throw error instanceof ModelError ? error : new ModelError(`${what}: ${error.message}`);
    return found;
  }

  async prepare(progress) {
    progress("measuring the arithmetic");
    this.fused = await this.#checked("the adapter cannot be measured", () => this.#fuses());
    progress("loading weights");
    await this.#checked("the weights do not fit the GPU", () => this.#load());
    progress(`building ${this.#about.shaders.length} kernels`);
    await this.#checked("a kernel cannot be built", () => this.#build());
  }

  /** Whether the adapter's fma rounds once: then the error of a product that was rounded is what it gives exactly. */
  async #fuses() {
    const device = this.#device, count = 256;
    const code = `
      @group(0) @binding(0) var<storage, read_write> x: array<f32>;
      @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
        x[id.x] = fma(x[id.x], x[id.x + ${count}u], x[id.x + ${2 * count}u]);
      }`;
    const values = new Float32Array(3 * count), expected = new Float32Array(count);
    for (let i = 0, seed = 1; i < count; i++) {
      const draw = () => Math.fround(1 + (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32);
      const a = draw(), b = draw();
      values[i] = a;
      values[i + count] = b;
      values[i + 2 * count] = -Math.fround(a * b);
      expected[i] = a * b - Math.fround(a * b);
    }
    const buffer = this.#buffer(values.byteLength, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC);
    const back = this.#buffer(4 * count, GPUBufferUsage.MAP_READ);
    device.queue.writeBuffer(buffer, 0, values);
    const compute = { module: device.createShaderModule({ code }), entryPoint: "main" };
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    const entries = [{ binding: 0, resource: { buffer } }];
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(count / 64);
    pass.end();
    encoder.copyBufferToBuffer(buffer, 0, back, 0, 4 * count);
    device.queue.submit([encoder.finish()]);
    await back.mapAsync(GPUMapMode.READ);
    const found = new Float32Array(back.getMappedRange());
    return found.every((value, i) => value === expected[i]);
  }

  #buffer(size, usage) {
    return this.#device.createBuffer({ size: Math.ceil(size / 16) * 16, usage: usage | GPUBufferUsage.COPY_DST });
  }

  async #load() {
    const { buffers, weights } = this.#about;
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
    this.#buffers = buffers.map((size) => this.#buffer(size, usage));
    const data = await this.#files.read(weights.file);
    for (const { buffer, start, bytes } of weights.chunks) {
      this.#write(this.#buffers[buffer], new Uint8Array(data, start, bytes));
    }
  }

  /** Copy bytes to a buffer, whose size is a multiple of 16; copies are of whole words. */
  #write(buffer, bytes) {
    const whole = bytes.byteLength & ~3;
    if (whole) this.#device.queue.writeBuffer(buffer, 0, bytes, 0, whole);
    if (whole < bytes.byteLength) {
      const rest = new Uint8Array(4);
      rest.set(bytes.subarray(whole));
      this.#device.queue.writeBuffer(buffer, whole, rest);
    }
  }

  async #build() {
    const device = this.#device, { shaders, launches, preludes } = this.#about;
    const prelude = text(await this.#files.read(this.fused ? preludes.fused : preludes.pair));
    const window = Math.ceil((4 * Math.max(4, ...launches.map(({ words }) => words.length))) / SLOT) * SLOT;
    const visibility = GPUShaderStage.COMPUTE;
    const uniform = device.createBindGroupLayout({
      entries: [{ binding: 0, visibility, buffer: { type: "uniform", hasDynamicOffset: true, minBindingSize: window } }],
    });
    const built = await Promise.all(shaders.map(async ({ file, entry, bindings }) => {
      const code = `${prelude}\n${text(await this.#files.read(file))}`;
      const entries = bindings.map((type, binding) => ({ binding, visibility, buffer: { type } }));
      const layout = device.createBindGroupLayout({ entries });
      const pipeline = await device.createComputePipelineAsync({
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout, uniform] }),
        compute: { module: device.createShaderModule({ code, label: entry }), entryPoint: entry },
      });
      return { layout, pipeline };
    }));
    const words = new Uint32Array((window / 4) * Math.max(1, launches.length));
    launches.forEach((launch, i) => words.set(launch.words, (window / 4) * i));
    const blocks = this.#buffer(words.byteLength, GPUBufferUsage.UNIFORM);
    device.queue.writeBuffer(blocks, 0, words);
    const scalars = device.createBindGroup({
      layout: uniform, entries: [{ binding: 0, resource: { buffer: blocks, offset: 0, size: window } }],
    });
    const groups = new Map();
    this.#steps = launches.map(({ shader, buffers, grid }, i) => {
      const key = `${shader} ${buffers}`, { layout, pipeline } = built[shader];
      if (!groups.has(key)) {
        const entries = buffers.map((number, binding) => ({ binding, resource: { buffer: this.#buffers[number] } }));
        groups.set(key, device.createBindGroup({ layout, entries }));
      }
      return { pipeline, group: groups.get(key), scalars, at: window * i, grid };
    });
    this.#plan();
  }

  /** What is copied back after a run: the results, then a word for each kernel with assertions. */
  #plan() {
    let place = 0;
    const add = (buffer, offset, bytes, about) => {
      const start = offset & ~3, length = Math.ceil((offset + bytes - start) / 4) * 4;
      if (bytes) this.#copies.push({ buffer, start, length, place, skip: offset - start, bytes, about });
      else this.#copies.push({ length: 0, place, skip: 0, bytes: 0, about });
      place += length;
    };
    for (const one of this.#about.outputs) {
      const steps = one.shape.reduce((sum, size, i) => sum + (size - 1) * one.strides[i], 1);
      add(one.buffer, one.offset, product(one.shape) ? steps * BYTES[one.dtype] : 0, one);
    }
    const noted = new Map();
    for (const shader of this.#about.shaders) if (shader.status !== null) noted.set(shader.status, shader);
    for (const [status, shader] of noted) add(status, 0, 4, shader);
    this.staging = this.#buffer(Math.max(16, place), GPUBufferUsage.MAP_READ);
  }

  /** Run the model. inputs: for each of `this.inputs` a typed array or bytes. Runs follow one another. */
  run(inputs) {
    const mine = this.#last.then(() => this.#checked("the model does not run", () => this.#run(inputs)));
    this.#last = mine.catch(() => {});
    return mine;
  }

  async #run(inputs) {
    const device = this.#device;
    this.#about.inputs.forEach(({ name, dtype, shape, buffer }, i) => {
      const given = inputs[i], bytes = product(shape) * BYTES[dtype];
      if (!ArrayBuffer.isView(given) || given.byteLength !== bytes) {
        throw new ModelError(`input ${name} is ${dtype} of shape [${shape}]: give ${bytes} bytes in a typed array`);
      }
      this.#write(this.#buffers[buffer], new Uint8Array(given.buffer, given.byteOffset, bytes));
    });
    for (let first = 0; first < this.#steps.length; first += BATCH) {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      for (const { pipeline, group, scalars, at, grid } of this.#steps.slice(first, first + BATCH)) {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.setBindGroup(1, scalars, [at]);
        pass.dispatchWorkgroups(...grid);
      }
      pass.end();
      device.queue.submit([encoder.finish()]);
    }
    const encoder = device.createCommandEncoder();
    for (const { buffer, start, length, place } of this.#copies) {
      if (length) encoder.copyBufferToBuffer(this.#buffers[buffer], start, this.staging, place, length);
    }
    device.queue.submit([encoder.finish()]);
    await Promise.race([this.staging.mapAsync(GPUMapMode.READ), this.#lost]);
    const data = this.staging.getMappedRange().slice(0);
    this.staging.unmap();
    return this.#results(data);
  }

  #results(data) {
    const results = [];
    for (const { place, skip, bytes, about } of this.#copies) {
      if (about.sites) {
        const failed = new Uint32Array(data, place, 1)[0];
        if (!failed) continue;
        this.#device.queue.writeBuffer(this.#buffers[about.status], 0, new Uint32Array(1));
        throw new ModelError(`kernel ${about.name}: an assertion failed: ${about.sites[failed - 1] || failed}`);
      }
      const { dtype, shape, strides } = about;
      const part = new Uint8Array(data.slice(place + skip, place + skip + bytes));
      results.push({ dtype, shape, data: gathered(numbers(dtype, part), shape, strides) });
    }
    return results;
  }

  /** What a page compares with: inputs, and for each result what it should be, the CPU's error and what passes. */
  async example() {
    const { inputs, reference, results } = this.#about.check;
    const given = await this.#files.tensors(inputs), wanted = await this.#files.tensors(reference);
    return {
      inputs: this.inputs.map((_, i) => given[i].bytes),
      results: results.map((one, i) => ({ ...one, data: numbers(wanted[i].dtype, wanted[i].bytes.slice()) })),
    };
  }
}

/** Elements in their order, of a tensor that begins at the first and has these strides. */
function gathered(elements, shape, strides) {
  const count = product(shape);
  const straight = shape.every((size, i) => size === 1 || strides[i] === product(shape.slice(i + 1)));
  if (straight) return elements.slice(0, count);
  const found = new elements.constructor(count), at = shape.map(() => 0);
  for (let i = 0, place = 0; i < count; i++) {
    found[i] = elements[place];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      place += strides[axis];
      if (++at[axis] < shape[axis]) break;
      place -= at[axis] * strides[axis];
      at[axis] = 0;
    }
  }
  return found;
}

/** Bytes, which begin their buffer, as numbers; 16-bit floats become 32-bit ones. */
export function numbers(dtype, bytes) {
  const kinds = { float64: Float64Array, float32: Float32Array, int64: BigInt64Array, int32: Int32Array,
    int16: Int16Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array };
  if (kinds[dtype]) return new kinds[dtype](bytes.buffer, 0, bytes.byteLength / BYTES[dtype]);
  const halves = new Uint16Array(bytes.buffer, 0, bytes.byteLength / 2);
  if (dtype === "bfloat16") return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
  if (dtype !== "float16") throw new ModelError(`there are no numbers of type ${dtype} in a browser`);
  return Float32Array.from(halves, (half) => {
    const sign = half >> 15 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
  });
}
