// Tiles of several answers: one is picked to be seen large, a chip shows only those of its label. `element`,
// `trigger` and `watch` are Gradio's.
let wasEmpty = true;
watch("value", () => setTimeout(() => {
  const isEmpty = !element.querySelector(".tk-batch");
  if (wasEmpty && !isEmpty) element.scrollIntoView({ behavior: "smooth", block: "nearest" });
  wasEmpty = isEmpty;
}));

element.addEventListener("click", (event) => {
  const chip = event.target.closest(".tk-chip");
  if (chip) {
    const isPressed = chip.getAttribute("aria-pressed") === "true";
    for (const other of element.querySelectorAll(".tk-chip")) other.setAttribute("aria-pressed", "false");
    chip.setAttribute("aria-pressed", String(!isPressed));
    for (const tile of element.querySelectorAll(".tk-tile"))
      tile.hidden = !isPressed && tile.dataset.kind !== chip.dataset.kind;
    return;
  }
  const tile = event.target.closest(".tk-tile");
  if (!tile) return;
  element.querySelector("[aria-current]")?.removeAttribute("aria-current");
  tile.setAttribute("aria-current", "true");
  trigger("picked", { index: Number(tile.dataset.index) });
});
