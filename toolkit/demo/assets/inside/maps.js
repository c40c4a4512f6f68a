// Pointing at a cell of a filter's map shows on the board what it sees. `element` is Gradio's.
element.addEventListener("pointerover", (event) => {
  const cell = event.target.closest("[data-map] i");
  const [row, column] = cell ? [Number(cell.dataset.row), Number(cell.dataset.column)] : [-9, -9];
  document.querySelectorAll(".tk-board button").forEach((square, index) => {
    const [down, across] = [Math.floor(index / 9) - row, (index % 9) - column];
    square.classList.toggle("tk-pointed", down >= 0 && down < 3 && across >= 0 && across < 3);
  });
});
element.addEventListener("pointerleave", () => {
  for (const square of document.querySelectorAll(".tk-pointed")) square.classList.remove("tk-pointed");
});
