// The threshold under which answers are refused: what it costs is told while the slider moves, and `changed` when it
// rests. `element`, `trigger` and `watch` are Gradio's.
const slider = () => element.querySelector("input[type=range]");
const percent = (share) => `${(100 * share).toFixed(1)} %`;

function draw() {
  const input = slider();
  if (!input) return;
  const { below, answered, right, own, start, total, subset } = JSON.parse(element.querySelector("[data-curve]").dataset.curve);
  const isOwn = Number(input.value).toFixed(2) === start;
  const value = isOwn ? own : Number(input.value);
  // Of the thresholds that were counted, the last that is no higher.
  const index = below.findLastIndex((threshold) => threshold <= value + 1e-9);
  element.querySelector("output").textContent = value ? percent(value) : "nothing";
  const line = element.querySelector("line");
  line.setAttribute("x1", 100 * value);
  line.setAttribute("x2", 100 * value);
  element.querySelector("[data-reset]").hidden = isOwn;
  const base = `${percent(right[0])} of the answers to ${total.toLocaleString("en")} ${subset} pictures are right`;
  element.querySelector(".tk-cost").textContent =
    index === 0 || answered[index] === 1
      ? `Nothing is refused: ${base}.`
      : right[index] === null
        ? "Every answer is refused."
        : `Refuses ${percent(1 - answered[index])} of ${total.toLocaleString("en")} ${subset} pictures; of the rest ` +
          `${percent(right[index])} are right, instead of ${percent(right[0])}.`;
  return isOwn ? null : value;
}

element.addEventListener("input", draw);
element.addEventListener("change", () => trigger("changed", { below: draw() }));
element.addEventListener("click", (event) => {
  if (!event.target.closest("[data-reset]")) return;
  const { start } = JSON.parse(element.querySelector("[data-curve]").dataset.curve);
  slider().value = start;
  slider().focus();
  trigger("changed", { below: draw() });
});
watch("value", () => setTimeout(draw));
draw();
