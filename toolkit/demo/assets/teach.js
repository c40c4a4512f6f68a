// Teaching: classes are filled with pictures, a lesson is followed, and what was learned is tried. The server keeps the
// pictures; this script shows what it answers. `element`, `server` and `upload` are Gradio's.
const SIDE = 1024;  // pictures are made smaller before they are sent, if their longer side has more pixels
const SNAP = 256;  // side of a picture from the webcam
const SENDERS = 4;
const PICTURE = /\.(jpe?g|png|webp|gif|bmp|tiff?|heic|heif|avif)$/i;

const root = element.querySelector(".tt");
const find = (selector) => root.querySelector(selector);
const isShown = () => root.offsetParent !== null;
const thumbs = new Map();  // data URLs by the numbers of pictures
const cards = new Map();  // by the numbers of classes
let classes = [];
let isTeaching = false;
let secret = null;

function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties))
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// The server knows this page by a secret that comes with it.
async function ask(request) {
  for (let wait = 0; secret === null && wait < 200; wait += 1) {
    secret = document.querySelector("#teach-visit [data-secret]")?.dataset.secret ?? null;
    if (secret === null) await new Promise((resolve) => setTimeout(resolve, 50));
  }
  let answer;
  try {
    answer = await server.ask({ secret, known: [...thumbs.keys()], ...request });
  } catch {
    answer = { problem: "The server did not answer. Reload the page if this stays so." };
  }
  if (answer.collection) show(answer.collection);
  complain(answer.problem ? [answer.problem] : answer.problems ?? []);
  return answer;
}

// Changes one after another, so that an older answer never replaces a newer one.
let last = Promise.resolve();
const change = (request) => (last = last.then(() => ask(request)));

function complain(problems) {
  for (const text of new Set(problems)) {
    const close = make("button", { type: "button", ariaLabel: "Dismiss" }, "×");
    const line = make("p", {}, make("span", {}, text), close);
    close.onclick = () => line.remove();
    if ([...find(".tt-problems").children].some((other) => other.firstChild.textContent === text)) continue;
    find(".tt-problems").append(line);
  }
}

const forgetProblems = () => find(".tt-problems").replaceChildren();

// --- classes

function show(collection) {
  classes = collection.classes;
  for (const [number, url] of Object.entries(collection.thumbnails)) thumbs.set(Number(number), url);
  for (const [number, card] of cards)
    if (!classes.some((own) => own.id === number)) { card.close(); card.element.remove(); cards.delete(number); }
  const place = find(".tt-classes");
  for (const own of classes) {
    if (!cards.has(own.id)) cards.set(own.id, classCard(own.id));
    const card = cards.get(own.id);
    card.update(own);
    if (card.element.parentNode !== place) place.append(card.element);
  }
  need();
}

function classCard(number) {
  const name = make("input", { className: "tt-name", maxLength: 60, spellcheck: false, ariaLabel: "Name of the class" });
  const count = make("span", { className: "tt-count" });
  const drop = make("button", { type: "button", className: "tt-drop", title: "Remove this class" }, "×");
  const files = make("input", { type: "file", multiple: true, accept: "image/*,.heic,.heif,.tif,.tiff,.avif" });
  const choose = make("label", { className: "tt-button" }, "Add pictures", files);
  const snap = make("button", { type: "button", className: "tt-button" }, "Webcam");
  const shelf = make("div", { className: "tt-shelf" });
  const camera = make("div", { className: "tt-camera", hidden: true });
  const card = make("section", { className: "tt-card tt-class" },
    make("header", {}, name, count, drop), make("div", { className: "tt-tools" }, choose, snap), camera, shelf);
  card.dataset.class = number;
  let shown = "";
  let close = () => {};
  name.onchange = () => change({ do: "rename", class: number, name: name.value });
  name.onkeydown = (event) => event.key === "Enter" && name.blur();
  name.onfocus = () => name.select();
  drop.onclick = () => { close(); change({ do: "remove_class", class: number }).then(check); };
  files.onchange = () => { take([...files.files].map((file) => ({ file, class: number }))); files.value = ""; };
  snap.onclick = async () => {
    if (!camera.hidden) return close();
    close = await openCamera(camera, (file) => take([{ file, class: number }]), () => { snap.textContent = "Webcam"; });
    if (!camera.hidden) snap.textContent = "Close webcam";
  };
  return {
    element: card,
    close: () => close(),
    update(own) {
      if (document.activeElement !== name) name.value = own.name;
      drop.setAttribute("aria-label", `Remove ${own.name}`);
      const waiting = pending.filter((item) => item.class === number).length;
      count.textContent = waiting ? `sending ${waiting} …` : own.pictures.length ? `${own.pictures.length}` : "";
      const now = own.pictures.join();
      if (now === shown) return;
      shown = now;
      shelf.replaceChildren(...own.pictures.map((picture) => thumb(picture, own.name)).reverse());
    },
  };
}

function thumb(picture, name) {
  const button = make("button", { type: "button", className: "tt-thumb", title: `Remove this picture of ${name}` });
  button.dataset.remove = picture;
  if (thumbs.has(picture)) button.append(make("img", { src: thumbs.get(picture), alt: "" }));
  return button;
}

// --- pictures on their way

const pending = [];  // {file, class or label}
let ready = [];
let active = 0;
let isFlushing = false;

function take(items) {
  forgetProblems();
  pending.push(...items);
  for (const own of classes) cards.get(own.id)?.update(own);
  for (let i = 0; i < SENDERS; i += 1) pump();
}

async function pump() {
  if (active >= SENDERS || !pending.length) return;
  active += 1;
  const { file, ...where } = pending.shift();
  try {
    const { path } = await send(await smaller(file));
    ready.push({ path, orig_name: file.name, ...where });
  } catch (error) {
    complain([`${file.name} was not sent: ${error?.message ?? error}`]);
  }
  active -= 1;
  flush();
  pump();
}

async function flush() {
  if (isFlushing) return;
  isFlushing = true;
  while (ready.length) {
    const files = ready.splice(0, 16);
    const answer = await change({ do: "add", files });
    if (answer.is_full) { pending.length = 0; ready = []; }
  }
  isFlushing = false;
  if (!active && !pending.length) { for (const own of classes) cards.get(own.id)?.update(own); check(); }
}

async function smaller(file) {
  if (!/^image\/(jpeg|png|webp)$/.test(file.type)) return file;
  let picture;
  try {
    picture = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file;  // the server says what is wrong with it
  }
  const scale = SIDE / Math.max(picture.width, picture.height);
  if (scale >= 1) return file;
  const canvas = make("canvas", { width: Math.round(picture.width * scale), height: Math.round(picture.height * scale) });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new File([await blobOf(canvas)], file.name.replace(/\.\w+$/, "") + ".jpg", { type: "image/jpeg" });
}

const blobOf = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));

async function addZip(file) {
  forgetProblems();
  find(".tt-zip").classList.add("tt-busy");
  try {
    const { path } = await send(file);
    await change({ do: "add_zip", file: { path, orig_name: file.name } });
    check();
  } catch (error) {
    complain([`${file.name} was not sent: ${error?.message ?? error}`]);
  }
  find(".tt-zip").classList.remove("tt-busy");
}

// Gradio puts files of equal bytes and names at one place, and the server takes each away once it is read.
const send = (file) => {
  const mark = [...crypto.getRandomValues(new Uint32Array(2))].map((part) => part.toString(36)).join("");
  return upload(new File([file], `${mark}-${file.name}`, { type: file.type }));
};

const isPicture = ({ name, type }) => !name.startsWith(".") && (PICTURE.test(name) || type.startsWith("image/"));

// Folders that are dropped: each picture is of the class that its own folder is called.
async function walk(entry, label, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    if (isPicture(file)) found.push({ file, label });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const inner of entries) await walk(inner, entry.name, found);
  }
}

async function dropped(data, target) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const folders = entries.filter((entry) => entry.isDirectory);
  const files = [...data.files].filter((file) => !folders.some((entry) => entry.name === file.name));
  const card = target?.closest?.(".tt-class");
  const own = card ? Number(card.dataset.class) : null;
  for (const file of files.filter((each) => /\.zip$/i.test(each.name))) await addZip(file);
  const loose = files.filter((file) => !/\.zip$/i.test(file.name));
  const found = [];
  for (const folder of folders) await walk(folder, folder.name, found);
  if (own !== null) for (const item of found) { item.class = own; delete item.label; }
  if (target?.closest?.(".tt-try")) { if (loose.length) tryFile(loose[0]); return; }
  if (loose.length && own === null) complain(["Drop pictures on the class that they are of."]);
  else found.push(...loose.map((file) => ({ file, class: own })));
  if (found.length) take(found);
}

for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(type, (event) => {
    if (!isShown() || ![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault();
    for (const marked of root.querySelectorAll(".tt-over")) marked.classList.remove("tt-over");
    if (type === "drop") return dropped(event.dataTransfer, event.target);
    if (type !== "dragleave") (event.target.closest?.(".tt-class, .tt-try") ?? find(".tt-zip")).classList.add("tt-over");
  });
}

// --- webcam

async function openCamera(place, snap, closed) {
  let stream;
  try {
    if (!navigator.mediaDevices) throw new Error("browsers allow it on https and localhost only");
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
  } catch (error) {
    complain([`The webcam cannot be used: ${error.message}.`]);
    return () => {};
  }
  const video = make("video", { autoplay: true, muted: true, playsInline: true });
  video.srcObject = stream;
  const hold = make("button", { type: "button", className: "tt-hold" }, "Hold to take pictures");
  place.replaceChildren(video, ...(snap ? [hold] : []));
  place.hidden = false;
  let timer = null;
  let number = 0;
  const shoot = async () => {
    const canvas = frame(video);
    if (canvas) snap(new File([await blobOf(canvas)], `webcam-${(number += 1)}.jpg`, { type: "image/jpeg" }));
  };
  const begin = () => { if (timer === null) { shoot(); timer = setInterval(shoot, 200); hold.classList.add("tt-on"); } };
  const end = () => { clearInterval(timer); timer = null; hold.classList.remove("tt-on"); };
  hold.onpointerdown = (event) => { hold.setPointerCapture(event.pointerId); begin(); };
  hold.onpointerup = hold.onpointercancel = hold.onblur = end;
  hold.onkeydown = (event) => [" ", "Enter"].includes(event.key) && !event.repeat && begin();
  hold.onkeyup = end;
  return () => {
    end();
    for (const track of stream.getTracks()) track.stop();
    place.hidden = true;
    place.replaceChildren();
    closed();
  };
}

function frame(video) {
  const side = Math.min(video.videoWidth, video.videoHeight);
  if (!side) return null;
  const canvas = make("canvas", { width: SNAP, height: SNAP });
  const left = (video.videoWidth - side) / 2, top = (video.videoHeight - side) / 2;
  canvas.getContext("2d").drawImage(video, left, top, side, side, 0, 0, SNAP, SNAP);
  return canvas;
}

// --- the doctor

let checks = 0;

async function check() {
  const number = (checks += 1);
  const { findings } = await ask({ do: "check" });
  if (!findings || number !== checks) return;
  const parts = findings.map(({ sentence, groups }) => make("div", { className: "tt-finding" }, make("p", {}, sentence),
    ...groups.map((group) => make("div", { className: "tt-group" }, ...group.map((picture) =>
      make("div", {}, thumb(picture, nameOf(picture)), make("span", {}, nameOf(picture))))))));
  const heading = make("h3", {}, "Before you teach");
  find(".tt-findings").replaceChildren(...(parts.length ? [heading, ...parts] : []));
}

const nameOf = (picture) => classes.find((own) => own.pictures.includes(picture))?.name ?? "";

// --- the lesson

const networks = {};

function need() {
  const filled = classes.filter((own) => own.pictures.length).length;
  const chosen = find("[data-network]").value;
  find(".tt-go").disabled = !isTeaching && (filled < 2 || !chosen);
  find(".tt-need").textContent = isTeaching || !chosen ? "" : filled < 2 ? "Give it pictures of at least two classes." : "";
  find(".tt-advice").textContent = networks[chosen] ?? "There is no network here to start from: its bundle must hold a model.keras.";
}

async function teach() {
  if (isTeaching) return ask({ do: "stop" });
  forgetProblems();
  isTeaching = true;
  const go = find(".tt-go");
  go.textContent = "Stop";
  go.classList.add("tt-stop");
  closeLive();
  for (const card of cards.values()) card.close();
  find(".tt-score").replaceChildren();
  find(".tt-results").replaceChildren();
  find(".tt-try").hidden = true;
  find(".tt-steps").replaceChildren();
  find(".tt-progress").hidden = false;
  await last;
  let answer = await ask({ do: "teach", network: find("[data-network]").value });
  let hasResults = false;
  while (answer.phase === "waiting" || answer.phase === "working") {
    hasResults = tell(answer) || hasResults;
    await new Promise((resolve) => setTimeout(resolve, 300));
    answer = await ask({ do: "status", has_results: hasResults });
    // A server that is too busy to answer once is asked again.
    if (!answer.phase) answer = await ask({ do: "status", has_results: hasResults });
  }
  tell(answer);
  isTeaching = false;
  go.textContent = answer.phase === "done" ? "Teach again" : "Teach";
  go.classList.remove("tt-stop");
  find(".tt-lesson").dataset.state = answer.phase ?? "failed";
  find(".tt-progress").hidden = answer.phase !== "done";
  find(".tt-try").hidden = answer.phase !== "done";
  if (answer.phase === "done") {
    find(".tt-bar i").style.width = "100%";
    find(".tt-now").textContent = `Done in ${answer.seconds.toFixed(0)} seconds.`;
    find(".tt-answer").replaceChildren();
    find(".tt-seen").hidden = true;
    trigger("taught", { secret });
  } else {
    find(".tt-score").replaceChildren();
    find(".tt-results").replaceChildren();
  }
  need();
}

// Shows how far a lesson has come; tells if its results were in the answer.
function tell(answer) {
  if (!answer.steps) return false;
  find(".tt-lesson").dataset.state = answer.phase;
  const percent = Math.round(100 * answer.share);
  find(".tt-bar i").style.width = `${Math.max(2, percent)}%`;
  find(".tt-bar").setAttribute("aria-valuenow", percent);
  const now = answer.steps.filter((step) => step.seconds === null).at(-1);
  const place = answer.ahead === 1 ? "One other lesson comes first" : `${answer.ahead} other lessons come first`;
  find(".tt-now").textContent = answer.phase === "waiting" ? `${place}; yours begins by itself.`
    : now ? `${now.label}${now.total ? ` ${now.done} of ${now.total}` : ""} …` : "";
  find(".tt-steps").replaceChildren(...answer.steps.filter((step) => step.seconds >= 0.05).map((step) =>
    make("li", {}, make("span", {}, step.label), make("span", {}, `${step.seconds.toFixed(1)} s`))));
  if (!answer.score) return false;
  find(".tt-score").innerHTML = answer.score;
  find(".tt-score").append(...answer.notes.map((note) => make("p", { className: "tt-hint" }, note)));
  find(".tt-results").innerHTML = answer.results;
  return true;
}

// --- trying

async function tryFile(file, source) {
  const seen = find(".tt-seen");
  if (!source) {
    const picture = make("img", { alt: "The picture that was asked about" });
    picture.onload = () => URL.revokeObjectURL(picture.src);
    picture.onerror = () => picture.remove();
    picture.src = URL.createObjectURL(file);
    seen.replaceChildren(picture);
    seen.hidden = false;
  }
  try {
    const { path } = await send(await smaller(file));
    const { answer } = await ask({ do: "try", file: { path, orig_name: file.name } });
    if (answer) find(".tt-answer").innerHTML = answer;
    return Boolean(answer);
  } catch (error) {
    complain([`${file.name} was not sent: ${error?.message ?? error}`]);
    return false;
  }
}

let closeLive = () => {};

async function live() {
  const button = find("[data-live]");
  if (button.classList.contains("tt-on")) return closeLive();
  const seen = find(".tt-seen");
  let isOn = true;
  const stop = await openCamera(seen, null, () => {});
  if (seen.hidden) return;
  button.classList.add("tt-on");
  button.textContent = "Close webcam";
  closeLive = () => {
    isOn = false;
    stop();
    button.classList.remove("tt-on");
    button.textContent = "Webcam";
    closeLive = () => {};
  };
  while (isOn) {
    const video = seen.querySelector("video");
    const canvas = isShown() && video ? frame(video) : null;
    if (canvas && !(await tryFile(new File([await blobOf(canvas)], "webcam.jpg", { type: "image/jpeg" }), video))) closeLive();
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

async function download(what) {
  const { path, name } = await ask({ do: "download", what });
  if (!path) return;
  const { root: base = "", api_prefix: prefix = "/gradio_api" } = window.gradio_config ?? {};
  const link = make("a", { href: `${base}${prefix}/file=${path}`, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

root.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { remove, move, to, download: what } = button.dataset;
  if (button.matches(".tt-plus")) change({ do: "add_class" }).then(() => [...cards.values()].at(-1)?.element.querySelector("input").focus());
  else if (button.matches(".tt-go")) teach();
  else if (button.matches("[data-live]")) live();
  else if (what) download(what);
  else if (button.dataset.open) trigger("opened", { secret, where: button.dataset.open });
  else if (move || remove) {
    const picture = Number(move ?? remove);
    for (const figure of root.querySelectorAll(`figure[data-picture="${picture}"]`)) figure.classList.add("tt-settled");
    change(move ? { do: "move", picture, class: Number(to) } : { do: "remove", picture }).then(check);
  }
});
find("[data-folder]").onchange = ({ target }) => {
  const inOrder = [...target.files].sort((one, other) => (one.webkitRelativePath < other.webkitRelativePath ? -1 : 1));
  const items = inOrder.filter(isPicture).map((file) => ({ file, label: file.webkitRelativePath.split("/").at(-2) }));
  if (items.length) take(items);
  else complain(["No pictures in this folder; expected a folder of pictures for each class in it."]);
  target.value = "";
};
find("[data-zip]").onchange = (event) => { if (event.target.files.length) addZip(event.target.files[0]); event.target.value = ""; };
find("[data-try]").onchange = (event) => { closeLive(); if (event.target.files.length) tryFile(event.target.files[0]); event.target.value = ""; };
find("[data-network]").onchange = need;

ask({ do: "open" }).then((answer) => {
  const choice = find("[data-network]");
  for (const { name, title, advice } of answer.networks ?? []) {
    networks[name] = advice;
    choice.append(make("option", { value: name }, title));
  }
  need();
});
