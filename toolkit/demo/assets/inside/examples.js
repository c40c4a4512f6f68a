// The bundle's own pictures. `element` and `trigger` are Gradio's.
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-index]");
  if (button) trigger("choose", { index: Number(button.dataset.index) });
});
