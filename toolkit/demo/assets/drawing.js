// A canvas to draw on; after each stroke, what it shows is sent. `element`, `trigger`, `upload`, `watch` are Gradio's.
const SIZE = 280;
const canvas = element.querySelector("canvas");
const context = canvas.getContext("2d");
let ground = "";
let isDrawn = false;
let sent = 0;

function clear() {
  ground = canvas.dataset.ground;
  context.fillStyle = ground;
  context.fillRect(0, 0, SIZE, SIZE);
  isDrawn = false;
  sent += 1;  // what is under way comes too late
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * SIZE) / box.width, ((event.clientY - box.top) * SIZE) / box.height];
}

function send() {
  const number = ++sent;
  canvas.toBlob(async (blob) => {
    try {
      const { path } = await upload(new File([blob], "drawing.png", { type: "image/png" }));
      if (number === sent) trigger("drawn", { path, name: "the drawing", count: 1 });
    } catch (error) {
      trigger("refused", { name: "the drawing", reason: String(error?.message ?? error) });
    }
  });
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  context.strokeStyle = context.fillStyle = canvas.dataset.ink;
  context.lineWidth = Number(canvas.dataset.width);
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...place(event));
  context.lineTo(...place(event));  // a dot, where nothing follows
  context.stroke();
  isDrawn = true;
  sent += 1;
  event.preventDefault();
});

canvas.addEventListener("pointermove", (event) => {
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  const parts = event.getCoalescedEvents?.() ?? [];
  for (const part of parts.length ? parts : [event]) context.lineTo(...place(part));
  context.stroke();
});

canvas.addEventListener("pointerup", send);
canvas.addEventListener("pointercancel", send);

element.querySelector("button").addEventListener("click", () => {
  clear();
  trigger("cleared", {});
});

// Another network may have learned the opposite.
watch("value", () => ground !== canvas.dataset.ground && clear());
clear();
