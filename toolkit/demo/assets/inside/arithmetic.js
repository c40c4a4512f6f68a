// A layer is chosen in the table, a cell of its map on the picture; what the cell sees is outlined. `element` and `watch`
// are Gradio's.
let chosen = "";
let place = [0.5, 0.5];  // of the cell, down and across, in shares of the network's view

const find = (selector) => element.querySelector(selector);
const pair = (text) => text.split(",").map(Number);
const rows = () => [...element.querySelectorAll(".tk-layers tbody tr")];

function write(row) {
  const told = [
    ["layer", `${row.dataset.name}, ${row.dataset.type}`],
    ["reads", row.dataset.reads],
    ["output", `${row.dataset.shape}${row.dataset.size ? `: ${row.dataset.size}` : ""}`],
    ["parameters", row.dataset.params && `${row.dataset.params} = ${row.cells[2].textContent}`],
    ["multiply-adds", row.dataset.macs && `${row.dataset.macs} = ${row.cells[3].textContent}`],
  ];
  find(".tk-worked dl").replaceChildren(...told.filter(([, text]) => text).flatMap(([name, text]) => {
    const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    detail.textContent = text;
    return [term, detail];
  }));
}

function outline(row) {
  const [outer, inner] = element.querySelectorAll(".tk-field rect");
  const words = find(".tk-field-words");
  find(".tk-field").toggleAttribute("hidden", !row.dataset.cells);
  if (!row.dataset.cells) {
    words.textContent = "Each of its numbers sees all of what the network saw.";
    return;
  }
  const size = pair(find(".tk-arithmetic").dataset.size);
  const cells = pair(row.dataset.cells);
  const first = pair(row.dataset.first);
  const extent = pair(row.dataset.extent);
  const jump = pair(row.dataset.jump);
  // The cell whose field's middle is nearest to what is pointed at.
  const cell = [0, 1].map((axis) => {
    const nearest = Math.round((place[axis] * size[axis] - 0.5 - first[axis] - (extent[axis] - 1) / 2) / jump[axis]);
    return Math.min(Math.max(nearest, 0), cells[axis] - 1);
  });
  const start = [0, 1].map((axis) => first[axis] + jump[axis] * cell[axis]);
  const set = (rect, top, left, height, width) => {
    for (const [name, value] of Object.entries({ x: left, y: top, width, height })) rect.setAttribute(name, value);
  };
  set(outer, ...start, ...extent);
  const middle = [0, 1].map((axis) => start[axis] + (extent[axis] - jump[axis]) / 2);
  set(inner, ...middle, ...jump);
  const isOver = [0, 1].some((axis) => start[axis] < 0 || start[axis] + extent[axis] > size[axis]);
  words.textContent =
    `Row ${cell[0] + 1}, column ${cell[1] + 1} of ${cells[1]}×${cells[0]} cells sees ${extent[1]}×${extent[0]} pixels` +
    `${isOver ? ", part of them padding beyond the edge" : ""}; its neighbour sees ${jump[1]} further on.`;
}

function show() {
  const all = rows();
  if (!all.length) return;
  const row = all.find((one) => one.dataset.name === chosen) ?? all.find((one) => one.dataset.macs) ?? all[0];
  chosen = row.dataset.name;
  for (const one of all) one.classList.toggle("tk-chosen-row", one === row);
  write(row);
  outline(row);
}

function choose(row) {
  chosen = row.dataset.name;
  show();
}

element.addEventListener("click", (event) => {
  const row = event.target.closest(".tk-layers tbody tr");
  if (row) choose(row);
});

element.addEventListener("keydown", (event) => {
  const row = event.target.closest(".tk-layers tbody tr");
  if (!row) return;
  const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
  if (event.key === "Enter" || event.key === " ") choose(row);
  else if (next) { next.focus(); choose(next); }
  else return;
  event.preventDefault();
});

for (const kind of ["pointermove", "pointerdown"])
  element.addEventListener(kind, (event) => {
    const lens = event.target.closest(".tk-lens");
    if (!lens) return;
    const box = lens.querySelector(".tk-seen").getBoundingClientRect();
    place = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
    show();
  });

watch("value", show);
show();
