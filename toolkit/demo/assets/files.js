// Pictures dropped or pasted anywhere, and those chosen in Gradio's dialog, all take one way: uploaded whatever the
// browser thinks of their type, the first one of several answered. `element`, `trigger` and `upload` are Gradio's.
// Each tab has its own, and only that of the tab that is shown listens.
const { accept, place } = element.querySelector("[data-accept]").dataset;
const INPUT = `${place} input[type=file]`;
const isShown = () => element.checkVisibility();

async function take(files) {
  const picture = document.querySelector(place);
  picture?.classList.add("tk-sending");
  try {
    const { path } = await upload(files[0]);
    trigger("taken", { path, name: files[0].name, count: files.length });
  } catch (error) {
    trigger("refused", { name: files[0].name, reason: String(error?.message ?? error) });
  } finally {
    picture?.classList.remove("tk-sending");
  }
}

const hasFiles = (data) => data && [...data.types].includes("Files");

function stop(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}

for (const type of ["dragenter", "dragover", "dragleave"]) {
  window.addEventListener(type, (event) => {
    if (!isShown() || !hasFiles(event.dataTransfer)) return;
    stop(event);
    const leaves = type === "dragleave" && event.relatedTarget === null;
    document.querySelector(place)?.classList.toggle("tk-dropping", !leaves);
  }, true);
}

window.addEventListener("drop", (event) => {
  document.querySelector(place)?.classList.remove("tk-dropping");
  if (!isShown() || !hasFiles(event.dataTransfer)) return;
  stop(event);
  if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
}, true);

window.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!isShown() || !files.length) return;
  stop(event);
  take(files);
}, true);

window.addEventListener("click", (event) => {
  if (event.target.matches?.(INPUT)) event.target.accept = accept;
}, true);

window.addEventListener("change", (event) => {
  if (!event.target.matches?.(INPUT) || !event.target.files.length) return;
  stop(event);
  take([...event.target.files]);
  event.target.value = "";
}, true);
