"use strict";
(function () {
  const one = (id) => document.getElementById(id);
  const GONE = "foveate view does not answer any more: is it still running?";
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const viewer = OpenSeadragon({
    element: one("stage"),
    drawer: "canvas",
    showNavigationControl: false,
    showNavigator: true,
    navigatorPosition: "BOTTOM_RIGHT",
    navigatorSizeRatio: 0.16,
    animationTime: still ? 0 : 0.5,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    maxZoomPixelRatio: 8,
    imageLoaderLimit: 4,
  });
  let shown = null;   // what the server told of the image on the stage
  let number = -1;    // of that image
  let pinned = null;  // number of the patch that stays lit

  function make(name, properties, ...children) {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  }
  const figure = (value) => value.toPrecision(3).replace("-", "−");
  const count = (value) => value.toLocaleString("en");

  // The list of images.
  async function list() {
    const images = await (await fetch("images.json")).json();
    one("images").hidden = images.length < 2;
    images.forEach((image, i) => {
      const button = make("button", { type: "button" }, make("span", { textContent: image.path }), make("small", {}));
      button.addEventListener("click", () => show(i));
      one("list").append(make("li", {}, button));
      mark(i, image.state, image.said);
    });
    return images.length;
  }
  function mark(i, state, said) {
    const item = one("list").children[i];
    item.classList.toggle("failed", state === "failed");
    item.querySelector("small").textContent = said;
  }
  one("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const item of one("list").children) item.hidden = !item.textContent.toLowerCase().includes(wanted);
  });

  // An image, from what the server tells of it.
  async function show(i) {
    number = i;
    history.replaceState(null, "", "#" + i);
    Array.from(one("list").children).forEach((item, k) => {
      item.firstChild.setAttribute("aria-current", String(k === i));
    });
    viewer.close();
    clear();
    one("path").textContent = one("list").children[i].firstChild.firstChild.textContent;
    say("Looking …");
    let told;
    try {
      const reply = await fetch("images/" + i + ".json");
      told = reply.ok ? await reply.json() : { error: await reply.text() };
    } catch (error) {
      told = { error: GONE };
    }
    if (number !== i) return;
    if (told.error) {
      say(told.error, true);
      mark(i, "failed", told.error);
      return;
    }
    mark(i, "seen", told.predicted);
    shown = told;
    fill();
    open();
  }
  function say(text, wrong) {
    one("answer").textContent = text;
    one("answer").classList.toggle("wrong", Boolean(wrong));
    document.title = text + " · foveate view";
  }
  function clear() {
    shown = pinned = null;
    for (const id of ["said", "legend", "seen", "warnings", "note", "draw-label"]) one(id).hidden = true;
    for (const id of ["cards", "probabilities", "class", "draw", "ticks"]) one(id).replaceChildren();
    one("place").textContent = one("trouble").textContent = one("facts").textContent = "";
    one("stage").classList.add("empty");
  }
  function source(kind, format) {
    const { tile, overlap, first, last } = shown.pyramid;
    const [height, width] = shown.size;
    const tiles = new OpenSeadragon.DziTileSource({
      width, height, tileSize: tile, tileOverlap: overlap, minLevel: first, maxLevel: last,
      tilesUrl: "images/" + number + "_" + kind + "/", fileFormat: format,
    });
    tiles.queryParams = "?look=" + shown.look;
    return tiles;
  }
  function open() {
    const layers = [{ tileSource: source("files", "jpeg") }];
    if (shown.map) layers.push({ tileSource: source("map", "png"), opacity: one("opacity").value / 100 });
    viewer.open(layers);
  }
  function fill() {
    const best = shown.probabilities.filter((each) => each.predicted);
    const named = best.map((each) => each.name + ", probability " + each.value.toFixed(3)).join(" · ");
    say(named || shown.predicted || "no class of probability ½ or more");
    const [height, width] = shown.size;
    one("facts").textContent = count(width) + " × " + count(height) + " pixels (width × height)" +
      (shown.mpp ? " · " + figure(shown.mpp) + " µm a pixel" : "");
    one("stage").classList.remove("empty");
    one("note").hidden = !shown.note;
    one("note").textContent = shown.note;
    one("warnings").hidden = !shown.warnings.length;
    one("warnings").querySelector("ul").replaceChildren(...shown.warnings.map((line) => make("li", { textContent: line })));
    fillProbabilities();
    fillLegend();
    fillPatches();
  }
  function fillProbabilities() {
    one("said").hidden = false;
    const more = shown.classes_left_out ? "; " + shown.classes_left_out + " less probable classes are left out" : "";
    one("caption").textContent = (shown.draws > 1 ? "Mean of " + shown.draws + " draws" : "Probability") + more;
    for (const each of shown.probabilities) {
      const meter = make("meter", { min: 0, max: 1, value: each.value, ariaHidden: "true" });
      const row = make("tr", { className: each.predicted ? "predicted" : "" }, make("th", { scope: "row", textContent: each.name }),
        make("td", { textContent: each.value.toFixed(4) }), make("td", {}, meter));
      one("probabilities").append(row);
    }
  }
  function fillLegend() {
    const map = shown.map;
    one("opacity").disabled = !map;
    one("opacity-label").hidden = one("opacity-value").hidden = one("legend").hidden = !map;
    if (!map) return;
    const pen = one("bar").getContext("2d");
    const colours = pen.createLinearGradient(0, 0, 256, 0);
    map.stops.forEach((colour, i) => colours.addColorStop(i / (map.stops.length - 1), colour));
    pen.fillStyle = colours;
    pen.fillRect(0, 0, 256, 1);
    const ticks = ["≤ " + figure(map.low), figure((map.low + map.high) / 2), "≥ " + figure(map.high)];
    one("bar").setAttribute("aria-label", "Colours from " + figure(map.low) + " to " + figure(map.high));
    one("ticks").replaceChildren(...ticks.map((text) => make("span", { textContent: text })));
    one("scale").textContent = count(map.cells[0]) + " × " + count(map.cells[1]) + " cells whose attention sums to 1; the largest is " +
      figure(map.largest) + ", and each would be " + figure(map.uniform) + " if all were alike.";
  }

  // Patches: a card in the list and a box on the image for each.
  function fillPatches() {
    one("seen").hidden = !shown.patches.length;
    one("class").append(...shown.probabilities.map((each, k) => make("option", { value: k, textContent: each.name })));
    one("class").value = shown.shown_class;
    const draws = new Set(shown.patches.map((patch) => patch.draw));
    one("draw-label").hidden = draws.size < 2;
    for (const draw of draws) one("draw").append(make("option", { value: draw, textContent: "draw " + (draw + 1) + " of " + draws.size }));
    if (draws.size > 1) one("draw").append(make("option", { value: "all", textContent: "all draws" }));
    shown.patches.forEach((patch, i) => one("cards").append(make("li", {}, card(patch, i))));
    choose();
  }
  function line(name, value, kind) {
    return make("span", {}, name, make("b", { textContent: value, className: kind || "" }));
  }
  function card(patch, i) {
    const picture = make("img", { src: "images/" + number + "_patches/" + i + ".jpeg?look=" + shown.look, alt: "", loading: "lazy" });
    const lines = [line("attention", figure(patch.attention))];
    if (shown.drawn) lines.push(line("weight", figure(patch.weight)));
    lines.push(line("adds", "", "adds"), line("row, column", count(patch.box[0]) + ", " + count(patch.box[1])));
    const button = make("button", { type: "button", className: "card" }, picture, make("b", { textContent: "Patch " + (i + 1) }), ...lines);
    button.dataset.patch = i;
    button.addEventListener("click", () => visit(i));
    return watched(button);
  }
  function watched(element) {
    const patch = Number(element.dataset.patch);
    element.addEventListener("mouseenter", () => light(patch));
    element.addEventListener("mouseleave", () => light(pinned));
    element.addEventListener("focus", () => light(patch));
    element.addEventListener("blur", () => light(pinned));
    return element;
  }
  function all() {
    return document.querySelectorAll("[data-patch]");
  }
  function light(patch) {
    for (const each of all()) each.classList.toggle("lit", Number(each.dataset.patch) === patch);
  }
  function choose() {
    if (!shown) return;
    const [draw, column] = [one("draw").value, one("class").value];
    for (const each of all()) {
      const patch = shown.patches[each.dataset.patch];
      const other = draw !== "" && draw !== "all" && Number(draw) !== patch.draw;
      if (each.classList.contains("box")) {
        each.classList.toggle("off", other || !one("show-boxes").checked);
        continue;
      }
      each.parentElement.hidden = other;
      const adds = patch.adds[column];
      each.querySelector(".adds").textContent = (adds < 0 ? "" : "+") + figure(adds);
    }
  }
  function place(patch) {
    const [top, left, height, width] = patch.box;
    const across = shown.size[1];
    return new OpenSeadragon.Rect(left / across, top / across, width / across, height / across);
  }
  function visit(i) {
    pinned = i;
    light(i);
    const { x, y, width, height } = place(shown.patches[i]);
    const around = 2;  // patches to every side
    viewer.viewport.fitBounds(new OpenSeadragon.Rect(x - around * width, y - around * height, (1 + 2 * around) * width, (1 + 2 * around) * height), still);
  }
  viewer.addHandler("open", () => {
    shown.patches.forEach((patch, i) => {
      const label = "Patch " + (i + 1) + ", attention " + figure(patch.attention) + ", at row " + patch.box[0] + ", column " + patch.box[1];
      const button = make("button", { type: "button", className: "box", ariaLabel: label });
      button.dataset.patch = i;
      const chosen = () => {
        visit(i);
        one("cards").children[i].scrollIntoView({ block: "nearest" });
      };
      button.addEventListener("click", (event) => { if (!event.detail) chosen(); });  // keyboard; the mouse is the viewer's
      new OpenSeadragon.MouseTracker({ element: button, clickHandler: (event) => { if (event.quick) chosen(); } });
      viewer.addOverlay({ element: watched(button), location: place(patch) });
    });
    choose();
    tell();
  });

  // Where the middle of the stage is, and how large.
  function tell() {
    if (!shown || !viewer.isOpen()) return;
    const middle = viewer.viewport.getCenter(true);
    const across = shown.size[1];
    const pixel = devicePixelRatio * viewer.viewport.getContainerSize().x * viewer.viewport.getZoom(true) / across;
    const told = ["middle: row " + count(Math.floor(middle.y * across)) + ", column " + count(Math.floor(middle.x * across)),
      pixel >= 1 ? figure(pixel) + " screen pixels a pixel" : "1 : " + figure(1 / pixel)];
    one("place").textContent = told.join(" · ");
  }
  for (const event of ["animation", "animation-finish", "resize"]) viewer.addHandler(event, tell);
  viewer.addHandler("tile-load-failed", async (event) => {
    const i = number;
    try {
      const reply = await fetch(event.tile.getUrl());
      const told = reply.ok ? "" : await reply.text();
      if (i === number && reply.status === 409) return await show(i); // the file has changed: so may the answer
      if (i === number && told) one("trouble").textContent = "A part cannot be shown: " + told;
    } catch (error) {
      one("trouble").textContent = GONE;
    }
  });

  // What can be set.
  function closer(factor) {
    if (!viewer.isOpen()) return;
    viewer.viewport.zoomBy(factor, null, still);
    viewer.viewport.applyConstraints(still);
  }
  function pixels() {
    if (!viewer.isOpen()) return;
    viewer.viewport.zoomTo(shown.size[1] / viewer.viewport.getContainerSize().x / devicePixelRatio, null, still);
  }
  one("closer").addEventListener("click", () => closer(2));
  one("farther").addEventListener("click", () => closer(0.5));
  one("whole").addEventListener("click", () => viewer.isOpen() && viewer.viewport.goHome(still));
  one("pixels").addEventListener("click", pixels);
  const opacity = one("opacity");
  function fade() {
    one("opacity-value").textContent = opacity.value + " %";
    const map = viewer.world.getItemAt(1);
    if (map) map.setOpacity(opacity.value / 100);
  }
  opacity.addEventListener("input", fade);
  one("show-boxes").addEventListener("change", choose);
  one("draw").addEventListener("change", choose);
  one("class").addEventListener("change", choose);
  viewer.addHandler("canvas-key", (event) => {
    const key = event.originalEvent.key;
    if (key === "1") pixels();
    if ("rRfF1".includes(key)) event.preventDefaultAction = true;  // nothing here is turned or mirrored
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    pinned = null;
    light(null);
  });
  const named = () => Number(location.hash.slice(1)) || 0;
  list().then((length) => {
    fade();
    addEventListener("hashchange", () => { if (named() !== number && named() < length) show(named()); });
    show(Math.min(named(), length - 1));
  });
})();
