
"use strict";

// --- filters: a form shows those tiles of the element it names whose label, prediction, columns and file name agree

function matches(tile, form) {
  const text = form.elements.text.value.trim().toLowerCase();
  return [...form.querySelectorAll("select")].every((choice) => {
    return choice.value === "" || tile.getAttribute(`data-${choice.name}`) === choice.value;
  }) && tile.dataset.name.toLowerCase().includes(text);
}

function apply(form) {
  const target = document.getElementById(form.dataset.filters);
  const tiles = [...target.querySelectorAll("li")];
  for (const tile of tiles) tile.hidden = !matches(tile, form);
  for (const sheet of target.querySelectorAll(".sheet")) sheet.hidden = !sheet.querySelector("li:not([hidden])");
  const count = tiles.filter((tile) => !tile.hidden).length;
  form.querySelector("output").textContent = `${count} of ${tiles.length} shown`;
  for (const list of target.querySelectorAll(".tiles")) rove(list);
}

for (const form of document.querySelectorAll(".filter")) {
  form.hidden = false;
  form.addEventListener("input", () => apply(form));
  form.addEventListener("submit", (event) => event.preventDefault());
}

// --- a cell of the confusion matrix, or a line of the table beside it, sets the filter of the mistakes

document.addEventListener("click", (event) => {
  const pick = event.target.closest("[data-pick-label]");
  if (!pick) return;
  const form = document.querySelector("[data-filters=mistake-tiles]");
  form.elements.label.value = pick.dataset.pickLabel;
  form.elements.predicted.value = pick.dataset.pickPredicted;
  form.elements.text.value = "";
  apply(form);
  document.getElementById("mistakes").scrollIntoView();
});

// --- galleries: one stop for the Tab key each, arrows within

function shown(list) {
  return [...list.querySelectorAll("li:not([hidden]) .tile")];
}

function rove(list, to = shown(list)[0]) {
  for (const tile of shown(list)) tile.tabIndex = tile === to ? 0 : -1;
}

function isPlain(event) {
  return !(event.altKey || event.ctrlKey || event.metaKey);
}

function step(list, tile, key) {
  const tiles = shown(list);
  const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
  const next = { Home: 0, End: tiles.length - 1 }[key] ?? tiles.indexOf(tile) + by;
  return tiles[next];
}

for (const list of document.querySelectorAll(".tiles")) {
  rove(list);
  list.addEventListener("focusin", (event) => rove(list, event.target));
  list.addEventListener("keydown", (event) => {
    const next = isPlain(event) && step(list, event.target, event.key);
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
}

for (const form of document.querySelectorAll(".filter")) apply(form);

// --- the viewer: one image, with its neighbours in the same gallery

const viewer = document.getElementById("viewer");
let current = null;

function view(tile) {
  current = tile;
  const image = tile.querySelector("img");
  viewer.querySelector("img").src = image.src;
  viewer.querySelector("img").classList.toggle("small", image.naturalWidth <= 64);
  viewer.querySelector(".name").textContent = tile.closest("li").dataset.name;
  viewer.querySelector(".facts").textContent = tile.querySelector(".facts").textContent;
  viewer.querySelector(".fields").textContent = tile.querySelector(".fields")?.textContent ?? "";
  if (!viewer.open) viewer.showModal();
}

function neighbour(by) {
  const tiles = shown(current.closest(".tiles"));
  const next = tiles[tiles.indexOf(current) + by];
  if (next) view(next);
}

document.addEventListener("click", (event) => {
  const tile = event.target.closest(".tile");
  if (tile) view(tile);
});

function isBeside(event) {
  const box = viewer.getBoundingClientRect();
  return event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom;
}

viewer.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.value === "close" || (event.target === viewer && isBeside(event))) viewer.close();
  else if (button) neighbour(Number(button.value));
});

viewer.addEventListener("keydown", (event) => {
  if (!isPlain(event)) return;
  if (event.key === "ArrowRight") neighbour(1);
  if (event.key === "ArrowLeft") neighbour(-1);
});

viewer.addEventListener("close", () => { if (current) current.focus(); });
