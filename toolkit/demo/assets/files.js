// Pictures dropped or pasted anywhere, and those chosen in Gradio's dialog, all take one way: uploaded whatever the
// browser thinks of their type, the first one of several answered. `element`, `trigger` and `upload` are Gradio's.
const INPUT = "#picture input[type=file]";

async function take(files) {
  const picture = document.querySelector("#picture");
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

// Other tabs take their files themselves.
const isShown = () => Boolean(document.querySelector("#picture")?.closest("#main")?.offsetParent);
const hasFiles = (data) => isShown() && data && [...data.types].includes("Files");

function stop(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}

for (const type of ["dragenter", "dragover", "dragleave"]) {
  window.addEventListener(type, (event) => {
    if (!hasFiles(event.dataTransfer)) return;
    stop(event);
    const leaves = type === "dragleave" && event.relatedTarget === null;
    document.querySelector("#picture")?.classList.toggle("tk-dropping", !leaves);
  }, true);
}

window.addEventListener("drop", (event) => {
  document.querySelector("#picture")?.classList.remove("tk-dropping");
  if (!hasFiles(event.dataTransfer)) return;
  stop(event);
  if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
}, true);

window.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length || !isShown()) return;
  stop(event);
  take(files);
}, true);

window.addEventListener("click", (event) => {
  if (event.target.matches?.(INPUT)) event.target.accept = element.querySelector("[data-accept]").dataset.accept;
}, true);

window.addEventListener("change", (event) => {
  if (!event.target.matches?.(INPUT) || !event.target.files.length) return;
  stop(event);
  take([...event.target.files]);
  event.target.value = "";
}, true);
