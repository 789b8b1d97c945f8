"use strict";
// The page of `kpose demo`: sends a photo, or one camera frame at a time, and draws the joints that come back. It asks nobody but its server.

const element = (name) => document.getElementById(name);
const canvas = element("picture");
const pen = canvas.getContext("2d");
const OUTLINE = "rgb(22 22 28)";
// As kpose.visualize draws: lines as wide as this fraction of the person.
const LINE_WIDTH = 0.013;

let network = null; // what the server draws and takes
let shown = null; // { image, name, answer }
let asked = 0; // number of the last photo or camera that was asked for: an older one's answer is not shown
let camera = null; // { stream, video }

class Refusal extends Error {}

// --- talking to the server ------------------------------------------------------------------------------------------------------

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Refusal("the server does not answer; is kpose demo still running?");
  }
  let content = null;
  try {
    content = await response.json();
  } catch {
    // What is no JSON is told by its status below.
  }
  if (!response.ok || content === null) throw new Refusal(content?.error ?? `the server answers with status ${response.status}`);
  return content;
}

function find(address, picture) {
  if (picture.size > network.largest_bytes) {
    throw new Refusal(`the picture has more than ${network.largest_bytes >> 20} MiB; make it smaller`);
  }
  return ask(address, { method: "POST", headers: { "Content-Type": picture.type }, body: picture });
}

// --- photos ---------------------------------------------------------------------------------------------------------------------

async function showPhoto(file) {
  stopCamera();
  const turn = ++asked;
  say("looking …");
  try {
    let image;
    try {
      image = await createImageBitmap(file);
    } catch {
      throw new Refusal(`${file.name || "that"} is no picture that this browser shows`);
    }
    if (image.width * image.height > network.largest_pixels) {
      throw new Refusal(`the picture has more than ${network.largest_pixels / 1e6} million pixels; make it smaller`);
    }
    // What the server does not read the browser converts.
    const readable = file.type === "image/jpeg" || file.type === "image/png";
    const answer = await find("poses", readable ? file : await encoded(image, image.width, image.height));
    if (turn !== asked) return;
    if (answer.width !== image.width || answer.height !== image.height) throw new Refusal("the browser turns this picture as the server does not; save it as JPEG");
    show({ image, name: file.name || "photo.jpg", answer });
    say("");
  } catch (error) {
    if (turn === asked) fail(error);
  }
}

function encoded(image, width, height) {
  const copy = document.createElement("canvas");
  copy.width = width;
  copy.height = height;
  copy.getContext("2d").drawImage(image, 0, 0, width, height);
  return new Promise((resolve, reject) => {
    copy.toBlob((blob) => (blob ? resolve(blob) : reject(new Refusal("this browser cannot convert the picture"))), "image/jpeg", 0.9);
  });
}

// --- camera ---------------------------------------------------------------------------------------------------------------------

async function startCamera() {
  const turn = ++asked;
  say("waiting for the camera …");
  element("camera").textContent = "Stop the camera";
  try {
    if (!navigator.mediaDevices?.getUserMedia) throw new Refusal("browsers give the camera only to https and to pages of this machine");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } }, audio: false });
    } catch (error) {
      const reasons = { NotAllowedError: "the camera was not allowed", NotFoundError: "there is no camera", NotReadableError: "the camera is in use elsewhere" };
      throw new Refusal(reasons[error.name] ?? `the camera cannot be opened: ${error.name}`);
    }
    camera = { stream, video: document.createElement("video") };
    if (turn !== asked) return stopCamera();
    camera.video.muted = true;
    camera.video.srcObject = stream;
    await camera.video.play();
    await follow(turn, `cameras/${crypto.randomUUID()}`);
  } catch (error) {
    if (turn !== asked) return;
    stopCamera();
    fail(error);
  }
}

async function follow(turn, address) {
  let rate = null;
  let last = performance.now();
  say("");
  while (turn === asked && camera) {
    const image = await createImageBitmap(camera.video);
    const answer = await find(address, await encoded(image, image.width, image.height));
    if (turn !== asked) return;
    const now = performance.now();
    // A second or so of memory: a single slow frame does not make the number jump.
    rate = rate === null ? 1000 / (now - last) : rate + 0.1 * (1000 / (now - last) - rate);
    last = now;
    shown?.image.close?.();
    show({ image, name: "camera.jpg", answer });
    element("rate").textContent = `${rate.toFixed(1)} frames/s`;
  }
}

function stopCamera() {
  camera?.stream.getTracks().forEach((track) => track.stop());
  camera = null;
  element("camera").textContent = "Use the camera";
  element("rate").textContent = "–";
}

// --- drawing --------------------------------------------------------------------------------------------------------------------

const threshold = () => Number(element("threshold").value);
const present = ([x, y, score]) => Number.isFinite(x) && Number.isFinite(y) && score > 0 && score >= threshold();
const css = (colour) => `rgb(${colour.join(" ")})`;

function show(next) {
  shown = next;
  canvas.hidden = false;
  element("invitation").hidden = true;
  element("stage").classList.add("filled");
  element("download").disabled = false;
  draw();
}

function draw() {
  element("threshold_value").textContent = threshold().toFixed(2);
  if (!shown) return;
  const { image, answer } = shown;
  if (canvas.width !== image.width || canvas.height !== image.height) {
    canvas.width = image.width;
    canvas.height = image.height;
    canvas.style.setProperty("--shape", image.width / image.height);
  }
  pen.drawImage(image, 0, 0);
  const people = answer.people.map((person) => ({ person, size: extent(person) })).sort((a, b) => b.size - a.size);
  for (const { person, size } of people) drawPerson(person, size);
  element("people").textContent = answer.people.length;
  element("joints").textContent = answer.people.reduce((sum, person) => sum + person.keypoints.filter(present).length, 0);
  element("time").textContent = `${Math.round(answer.seconds * 1000)} ms`;
}

function extent(person) {
  const joints = person.keypoints.filter(present);
  if (!joints.length) return 0;
  const range = (values) => Math.max(...values) - Math.min(...values);
  return Math.max(range(joints.map(([x]) => x)), range(joints.map(([, y]) => y)));
}

function drawPerson(person, size) {
  const width = Math.min(Math.max(LINE_WIDTH * size, 1.1), 0.02 * Math.max(canvas.width, canvas.height) + 1);
  const outline = Math.max(0.4, 0.3 * width);
  const radius = 1.15 * width;
  const joints = person.keypoints;
  const limbs = network.limbs.filter(([a, b]) => present(joints[a]) && present(joints[b]));
  const line = ([a, b], colour, wide) => {
    pen.strokeStyle = colour;
    pen.lineWidth = wide;
    pen.beginPath();
    // Pixel centres are at whole coordinates in kpose, at halves on a canvas.
    pen.moveTo(joints[a][0] + 0.5, joints[a][1] + 0.5);
    pen.lineTo(joints[b][0] + 0.5, joints[b][1] + 0.5);
    pen.stroke();
  };
  const disc = ([x, y], colour, wide) => {
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(x + 0.5, y + 0.5, wide, 0, 2 * Math.PI);
    pen.fill();
  };
  for (const limb of limbs) line(limb, OUTLINE, width + 2 * outline);
  for (const limb of limbs) line(limb, limbColour(limb), width);
  joints.forEach((joint, number) => {
    if (!present(joint)) return;
    disc(joint, OUTLINE, radius + outline);
    disc(joint, css(network.colours[number]), radius);
  });
}

// A limb has the colour of its side; one that joins both sides, or lies in the middle, that of the middle.
function limbColour([a, b]) {
  const pairs = network.skeleton.left_right_pairs;
  const sided = [a, b].filter((joint) => pairs.some((pair) => pair.includes(network.skeleton.joint_names[joint])));
  const colours = new Set(sided.map((joint) => css(network.colours[joint])));
  return colours.size === 1 ? [...colours][0] : "rgb(250 250 250)";
}

// --- names of joints ------------------------------------------------------------------------------------------------------------

function nameJoint(event) {
  const label = element("joint");
  label.hidden = true;
  if (!shown) return;
  const view = canvas.getBoundingClientRect();
  const scale = canvas.width / view.width;
  const x = (event.clientX - view.left) * scale - 0.5;
  const y = (event.clientY - view.top) * scale - 0.5;
  let nearest = null;
  for (const person of shown.answer.people) {
    person.keypoints.forEach((joint, number) => {
      const distance = Math.hypot(joint[0] - x, joint[1] - y);
      // Within 14 pixels of the screen.
      if (present(joint) && distance < 14 * scale && distance < (nearest?.distance ?? Infinity)) nearest = { distance, joint, number, person };
    });
  }
  if (!nearest) return;
  const who = nearest.person.identity ? `person ${nearest.person.identity}: ` : "";
  label.textContent = `${who}${network.skeleton.joint_names[nearest.number].replaceAll("_", " ")} ${nearest.joint[2].toFixed(2)}`;
  label.hidden = false;
  const stage = element("stage").getBoundingClientRect();
  const left = event.clientX - stage.left + 14;
  label.style.left = `${Math.max(4, Math.min(left, stage.width - label.offsetWidth - 4))}px`;
  label.style.top = `${Math.max(4, event.clientY - stage.top - 34)}px`;
}

// --- the rest -------------------------------------------------------------------------------------------------------------------

function say(text) {
  element("message").textContent = text;
  element("message").classList.remove("fault");
}

function fail(error) {
  if (!(error instanceof Refusal)) console.error(error);
  element("message").textContent = error instanceof Refusal ? error.message : "the page itself failed; the browser's console says how";
  element("message").classList.add("fault");
}

// The same form as predictions.json of `kpose predict`.
function download() {
  const { answer, name } = shown;
  const { joint_names, ...rest } = network.skeleton;
  const people = answer.people.map(({ keypoints, score, box }) => ({ keypoints, score, box }));
  const content = { joint_names, skeleton: { joint_names, ...rest }, images: { [name]: { height: answer.height, width: answer.width, people } }, left_out: [] };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1) + "\n"], { type: "application/json" }));
  link.download = name.replace(/\.[^.]*$/, "") + ".json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function prepareDropping() {
  const stage = element("stage");
  // Anywhere on the page: a photo that misses the field would replace the page.
  addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) stage.classList.remove("dropping");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("dropping");
    const file = event.dataTransfer.files[0];
    if (file) showPhoto(file);
  });
  addEventListener("paste", (event) => {
    const file = event.clipboardData.files[0];
    if (file) showPhoto(file);
  });
}

async function begin() {
  try {
    network = await ask("network");
  } catch (error) {
    fail(error);
    return;
  }
  element("network").textContent = `${network.title} – ${network.detector ? "everybody, by a person detector" : "one person"} – kpose ${network.kpose}`;
  element("camera").disabled = !network.cameras;
  prepareDropping();
  element("choose").addEventListener("click", () => element("file").click());
  element("file").addEventListener("change", (event) => {
    const file = event.target.files[0];
    // The same photo may be chosen again.
    event.target.value = "";
    if (file) showPhoto(file);
  });
  element("camera").addEventListener("click", () => {
    if (camera) {
      asked++;
      stopCamera();
      say("");
    } else {
      startCamera();
    }
  });
  element("threshold").addEventListener("input", draw);
  element("download").addEventListener("click", download);
  canvas.addEventListener("pointermove", nameJoint);
  canvas.addEventListener("pointerleave", () => (element("joint").hidden = true));
}

begin();
