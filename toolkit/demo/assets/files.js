// Pictures dropped or pasted anywhere, and those chosen in Gradio's dialog, all take one way: uploaded whatever the
// browser thinks of their type. Each tab with a place for a picture has this script; the open one takes the files.
// `element`, `trigger` and `upload` are Gradio's.
const told = element.querySelector("[data-accept]").dataset;
const INPUT = `#${told.place} input[type=file]`;
const most = Number(told.most);
const largest = Number(told.largest);
const archives = told.archives.split(",").filter(Boolean);
const place = () => document.querySelector(`#${told.place}`);
const isOpen = () => element.closest("[role=tabpanel]")?.offsetParent != null;
const isArchive = (file) => archives.some((suffix) => file.name.toLowerCase().endsWith(suffix));

async function take(files) {
  const count = files.length;
  if (most > 1 && count > most) {
    trigger("refused", { count, reason: `At most ${most} pictures are answered at once.` });
    return;
  }
  const isBatch = most > 1 && (count > 1 || isArchive(files[0]));
  const sent = [];
  place()?.classList.add("tk-sending");
  try {
    for (const file of isBatch ? files : [files[0]]) {
      const name = file.name;
      try {
        if (!isArchive(file) && file.size > largest) throw new Error(`${(file.size / 1e6).toFixed(1)} MB, and at most ${largest / 1e6} MB are taken of one picture.`);
        const { path } = await upload(file);
        if (!sent.length && !isArchive(file)) trigger("taken", { path, name, count });
        sent.push({ path, name });
      } catch (error) {
        const reason = String(error?.message ?? error);
        if (isBatch) sent.push({ name, reason });
        else trigger("refused", { name, reason });
      }
    }
    if (isBatch) trigger("batch", { files: sent });
  } finally {
    place()?.classList.remove("tk-sending");
  }
}

const hasFiles = (data) => data && [...data.types].includes("Files");

function stop(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}

for (const type of ["dragenter", "dragover", "dragleave"]) {
  window.addEventListener(type, (event) => {
    if (!isOpen() || !hasFiles(event.dataTransfer)) return;
    stop(event);
    const leaves = type === "dragleave" && event.relatedTarget === null;
    place()?.classList.toggle("tk-dropping", !leaves);
  }, true);
}

window.addEventListener("drop", (event) => {
  if (!isOpen()) return;
  place()?.classList.remove("tk-dropping");
  if (!hasFiles(event.dataTransfer)) return;
  stop(event);
  if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
}, true);

window.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!isOpen() || !files.length) return;
  stop(event);
  take(files);
}, true);

window.addEventListener("click", (event) => {
  if (!event.target.matches?.(INPUT)) return;
  event.target.accept = told.accept;
  event.target.multiple = most > 1;
}, true);

window.addEventListener("change", (event) => {
  if (!event.target.matches?.(INPUT) || !event.target.files.length) return;
  stop(event);
  take([...event.target.files]);
  event.target.value = "";
}, true);
