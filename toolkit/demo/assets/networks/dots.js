// A network is chosen by its dot or its name, and its dot marked. `element` and `trigger` are Gradio's.
function choose(event) {
  const button = event.target.closest("[data-network]");
  if (!button) return;
  event.preventDefault();
  trigger("choose", { name: button.dataset.network });
}

element.addEventListener("click", choose);
element.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") choose(event);
});
