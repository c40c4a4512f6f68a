// The dot of the network whose page is shown is marked. `element` and `watch` are Gradio's.
function mark() {
  const chosen = element.querySelector("[data-chosen]")?.dataset.chosen;
  for (const dot of document.querySelectorAll(".tk-dot"))
    dot.classList.toggle("tk-chosen", dot.dataset.network === chosen);
}

watch("value", mark);
mark();
