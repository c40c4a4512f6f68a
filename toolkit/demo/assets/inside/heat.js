// The strength of the heat is set in the browser, and kept from one picture to the next. `element`, `trigger` and
// `watch` are Gradio's.
let strength = 70;

function show() {
  const slider = element.querySelector(".tk-strength input");
  if (!slider) return;
  slider.value = strength;
  element.querySelector(".tk-lens").style.setProperty("--strength", strength / 100);
}

element.addEventListener("input", (event) => {
  if (!event.target.matches(".tk-strength input")) return;
  strength = Number(event.target.value);
  show();
});

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-label]");
  if (button) trigger("choose", { label: button.dataset.label });
  else if (event.target.closest("[data-search]")) trigger("search", {});
});

watch("value", show);
show();
