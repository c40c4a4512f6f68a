// The board: what is drawn is sent after each stroke. `element` and `trigger` are Gradio's.
const SIDE = 9;
let paints = null;  // what a stroke under way makes of cells: true for ink

const cells = () => [...element.querySelectorAll(".tk-board button")];
const set = (cell, isInk) => cell.setAttribute("aria-pressed", String(isInk));
const isInk = (cell) => cell.getAttribute("aria-pressed") === "true";
const send = () => trigger("drawn", { cells: cells().map((cell) => (isInk(cell) ? "#" : ".")).join("") });

element.addEventListener("pointerdown", (event) => {
  const cell = event.target.closest(".tk-board button");
  if (!cell || event.button) return;
  event.preventDefault();
  cell.focus();
  paints = !isInk(cell);
  set(cell, paints);
});

element.addEventListener("pointermove", (event) => {
  if (paints === null) return;
  // A finger keeps the element that it touched first.
  const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest(".tk-board button");
  if (cell && element.contains(cell)) set(cell, paints);
});

for (const kind of ["pointerup", "pointercancel"])
  window.addEventListener(kind, () => {
    if (paints === null) return;
    paints = null;
    send();
  });

element.addEventListener("click", (event) => {
  const sample = event.target.closest("[data-cells]");
  if (!sample) return;
  cells().forEach((cell, index) => set(cell, sample.dataset.cells[index] === "#"));
  send();
});

element.addEventListener("keydown", (event) => {
  const index = cells().indexOf(event.target);
  if (index < 0) return;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -SIDE, ArrowDown: SIDE };
  if (event.key in steps) {
    const next = cells()[index + steps[event.key]];
    if (next) {
      cells().forEach((cell) => cell.setAttribute("tabindex", cell === next ? "0" : "-1"));
      next.focus();
    }
  } else if (event.key === " " || event.key === "Enter") {
    set(event.target, !isInk(event.target));
    send();
  } else return;
  event.preventDefault();
});
