// Filters applied to the picture in the browser, while their numbers are typed. `element` and `watch` are Gradio's.
const MOST_NUMBERED = 12;  // pixels a side, whose numbers are written out
let chosen = "vertical";
let own = [[1, 0, -1], [1, 0, -1], [1, 0, -1]];
let source = null;  // {width, height, values}
let result = null;
let place = null;  // of the result, that is pointed at
let loading = 0;

const find = (selector) => element.querySelector(selector);
const numbers = (text) => text.split(";").map((row) => row.split(",").map(Number));
const written = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(2)).replace("-", "−");

function kernel() {
  if (chosen === "own") return own;
  return numbers(find(`[data-filter="${chosen}"]`).dataset.kernel);
}

function apply() {
  const weights = kernel();
  const side = weights.length;
  const width = source.width - side + 1;
  const height = source.height - side + 1;
  const caption = find(".tk-pair figure:last-child figcaption");
  if (width < 1 || height < 1) {
    result = null;
    caption.textContent = `The picture is smaller than the filter: ${source.width}×${source.height}.`;
    return;
  }
  const values = new Float32Array(width * height);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      let sum = 0;
      for (let down = 0; down < side; down++)
        for (let across = 0; across < side; across++)
          sum += weights[down][across] * source.values[(row + down) * source.width + column + across];
      values[row * width + column] = sum;
    }
  result = { width, height, values };
  const from = `${source.width}×${source.height}`;
  caption.textContent =
    `${from} with ${side}×${side} leaves ${width}×${height}: n − f + 1. Grey is zero, white the most, black the least.`;
}

// Grey is zero for answers; the darkest number is black for pictures.
function draw(canvas, image, isSigned) {
  canvas.hidden = !image;
  if (!image) return;
  const { width, height, values } = image;
  const isNumbered = Math.max(source.width, source.height) <= MOST_NUMBERED;
  const scale = isNumbered ? 44 : Math.max(1, Math.round(360 / Math.max(source.width, source.height)));
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.dataset.scale = scale;
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  if (isSigned) {
    // The strongest hundredth may be cut off, so that the rest is seen; not where numbers stand in the cells.
    const sizes = Float32Array.from(values, Math.abs).sort();
    high = Math.max(sizes[Math.floor((sizes.length - 1) * (isNumbered ? 1 : 0.99))], 1e-9);
    low = -high;
  }
  else if (source.isBytes) { low = 0; high = 255; }
  const small = new OffscreenCanvas(width, height);
  const pixels = new ImageData(width, height);
  for (let index = 0; index < values.length; index++) {
    const grey = (255 * (values[index] - low)) / Math.max(high - low, 1e-9);
    pixels.data.set([grey, grey, grey, 255], 4 * index);
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (!isNumbered) return;
  const longest = Math.max(...Array.from(values, (value) => written(value).length));
  context.font = `${longest > 4 ? 12 : longest > 3 ? 14 : 16}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let index = 0; index < values.length; index++) {
    context.fillStyle = pixels.data[4 * index] > 127 ? "#111" : "#fff";
    const [row, column] = [Math.floor(index / width), index % width];
    context.fillText(written(values[index]), (column + 0.5) * scale, (row + 0.5) * scale);
  }
}

function mark(canvas, row, column, side) {
  const scale = Number(canvas.dataset.scale);
  const context = canvas.getContext("2d");
  for (const [ink, width] of [["#000", 5], ["#ffb000", 2.5]]) {
    context.strokeStyle = ink;
    context.lineWidth = width;
    context.strokeRect(column * scale, row * scale, side * scale, side * scale);
  }
}

function show() {
  apply();
  draw(find(".tk-from"), source, false);
  draw(find(".tk-to"), result, true);
  const words = find(".tk-sum");
  if (!place || !result) {
    words.textContent = "Point at the picture: the sum of products at that place is worked out here.";
    return;
  }
  const weights = kernel();
  const row = Math.min(place[0], result.height - 1);
  const column = Math.min(place[1], result.width - 1);
  mark(find(".tk-from"), row, column, weights.length);
  mark(find(".tk-to"), row, column, 1);
  const terms = weights.flatMap((line, down) =>
    line.map((weight, across) => {
      const value = source.values[(row + down) * source.width + column + across];
      return `${written(value)}·${weight < 0 ? `(${written(weight)})` : written(weight)}`;
    }));
  words.innerHTML = `Row ${row + 1}, column ${column + 1}: ${terms.join(" + ")} = <b>${
    written(Math.round(100 * result.values[row * result.width + column]) / 100)}</b>`;
}

function lay() {
  const weights = kernel();
  const grid = find(".tk-kernel");
  grid.style.setProperty("--columns", weights.length);
  grid.replaceChildren(...weights.flatMap((line, row) => line.map((weight, column) => {
    const input = document.createElement("input");
    Object.assign(input, { type: "text", inputMode: "decimal", value: written(weight), autocomplete: "off" });
    input.setAttribute("aria-label", `row ${row + 1}, column ${column + 1}`);
    Object.assign(input.dataset, { row, column });
    return input;
  })));
  for (const button of element.querySelectorAll("[data-filter]"))
    button.setAttribute("aria-pressed", String(button.dataset.filter === chosen));
  complain("");
}

function complain(text) {
  const line = find(".tk-problem-line");
  line.hidden = !text;
  line.textContent = text;
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-filter]");
  if (!button) return;
  chosen = button.dataset.filter;
  lay();
  show();
});

// Whoever changes a number of a known filter has one of their own.
element.addEventListener("input", (event) => {
  if (!event.target.matches(".tk-kernel input")) return;
  const inputs = [...element.querySelectorAll(".tk-kernel input")];
  const side = Math.sqrt(inputs.length);
  const values = inputs.map((input) => Number(input.value.trim().replace("−", "-").replace(",", ".") || NaN));
  inputs.forEach((input, index) => input.setAttribute("aria-invalid", String(!Number.isFinite(values[index]))));
  const wrong = inputs.find((_, index) => !Number.isFinite(values[index]));
  if (wrong) {
    complain(`“${wrong.value}” in ${wrong.getAttribute("aria-label")} is no number; write one such as 1, −2 or 0.5.`);
    return;
  }
  complain("");
  own = Array.from({ length: side }, (_, row) => values.slice(row * side, (row + 1) * side));
  chosen = "own";
  for (const button of element.querySelectorAll("[data-filter]"))
    button.setAttribute("aria-pressed", String(button.dataset.filter === chosen));
  show();
});

for (const kind of ["pointermove", "pointerdown"])
  element.addEventListener(kind, (event) => {
    const canvas = event.target.closest("canvas");
    if (!canvas || !source) return;
    const box = canvas.getBoundingClientRect();
    const scale = Number(canvas.dataset.scale);
    const across = Math.floor(((event.clientX - box.left) * canvas.width) / box.width / scale);
    const down = Math.floor(((event.clientY - box.top) * canvas.height) / box.height / scale);
    const middle = canvas.matches(".tk-from") ? Math.floor((kernel().length - 1) / 2) : 0;  // what is pointed at is its middle
    place = [Math.max(down - middle, 0), Math.max(across - middle, 0)];
    show();
  });

async function open() {
  const panel = find(".tk-edges");
  if (!panel) return;
  const number = ++loading;
  place = null;
  if (panel.dataset.numbers) {
    const rows = numbers(panel.dataset.numbers);
    source = { width: rows[0].length, height: rows.length, values: rows.flat(), isBytes: false };
  } else {
    const image = new Image();
    image.src = panel.dataset.picture;
    await image.decode();
    if (number !== loading) return;
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
    const values = Float32Array.from({ length: width * height }, (_, index) =>
      Math.round(0.299 * data[4 * index] + 0.587 * data[4 * index + 1] + 0.114 * data[4 * index + 2]));
    source = { width, height, values, isBytes: true };
  }
  lay();
  show();
}

watch("value", open);
open();
