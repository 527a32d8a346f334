// What index.html shows. A classic script: from file:// it still runs, and says why nothing else does.
"use strict";

const show = (id, text) => { document.getElementById(id).textContent = text; };

function finish(state, text) {
  document.body.dataset.state = state;
  show("verdict", text);
}

const short = (number) => (number === 0 ? "0" : number.toExponential(1));
const size = (bytes) => {
  const unit = ["B", "KiB", "MiB", "GiB"].findIndex((_, i) => bytes < 1024 ** (i + 1) || i === 3);
  return `${(bytes / 1024 ** unit).toFixed(unit ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][unit]}`;
};
const time = (ms) => (ms < 10 ? `${ms.toFixed(2)} ms` : ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** The largest difference from what is expected; infinite where NaN and infinities are not where they should be. */
function difference(found, wanted) {
  let largest = 0;
  for (let i = 0; i < wanted.length; i++) {
    const a = Number(found[i]), b = Number(wanted[i]);
    if (found[i] === wanted[i] || a === b || (Number.isNaN(a) && Number.isNaN(b))) continue;
    const error = Math.abs(a - b);
    largest = Math.max(largest, Number.isNaN(error) ? Infinity : error);
  }
  return found.length === wanted.length ? largest : Infinity;
}

function fill(table, rows) {
  const cell = (text, i) => {
    const made = document.createElement(i ? "td" : "th");
    made.textContent = text;
    return made;
  };
  table.replaceChildren(...rows.map((row) => {
    const made = document.createElement("tr");
    made.append(...row.map(cell));
    return made;
  }));
}

async function check(model, example) {
  const results = await model.run(example.inputs);
  let passed = true;
  const rows = results.map(({ dtype, shape, data }, i) => {
    const { cpu, bound, data: wanted } = example.results[i];
    const error = difference(data, wanted);
    const good = error <= bound;
    passed &&= good;
    return [`${i}`, `${dtype} [${shape.join(", ")}]`, short(error), short(cpu), short(bound), good ? "passed" : "failed"];
  });
  fill(document.querySelector("#results tbody"), rows);
  return passed;
}

async function timed(model, example) {
  const times = [];
  for (let i = 0; i < 9; i++) {
    const started = performance.now();
    await model.run(example.inputs);
    times.push(performance.now() - started);
    if (times.reduce((a, b) => a + b) > 5000) break;
  }
  return { median: times.sort((a, b) => a - b)[times.length >> 1], runs: times.length };
}

async function main() {
  if (location.protocol === "file:") {
    finish("error", "Browsers load no models from file://. Serve this folder over http, then open http://localhost:8000/");
    show("hint", "python3 -m http.server 8000");
    return;
  }
  const started = performance.now();
  const { open } = await import("./torchport.js");
  const model = await open("./", { sha256: document.body.dataset.sha256, progress: (text) => show("verdict", `${text} …`) });
  const built = performance.now() - started;
  window.model = model; // for the console
  const example = await model.example();
  show("verdict", "running …");
  const first = performance.now();
  const passed = await check(model, example);
  const run = performance.now() - first;
  const { median, runs } = await timed(model, example);
  const { kernels, launches, weights, memory, torch, torchport, fused } = model.facts;
  fill(document.querySelector("#facts tbody"), [
    ["adapter", model.adapter],
    ["inputs", model.inputs.map(({ name, dtype, shape }) => `${name}: ${dtype} [${shape.join(", ")}]`).join(", ")],
    ["kernels", `${kernels}, launched ${launches} times a run`],
    ["weights", size(weights)],
    ["GPU memory", size(memory)],
    ["multiply-add", fused ? "the adapter's, which rounds once" : "in pairs of floats: the adapter's rounds twice"],
    ["loading and building", time(built)],
    ["first run", time(run)],
    ["a run", `${time(median)} (median of ${runs}, results copied back)`],
    ["made by", `torchport ${torchport}, torch ${torch}`],
  ]);
  finish(passed ? "passed" : "failed", passed ? "Passed: every result is within its bound." :
    "Failed: a result is further from float64 than it may be.");
}

main().catch((error) => finish("error", error.message));
