"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const one = (id) => document.getElementById(id);
  const boxes = all("#boxes [data-patch]");
  const cards = all(".card");
  const others = all("#boxes [data-other]");
  let pinned = null;

  // A box and its patch light up together, under the mouse, in focus, or pinned by a click.
  function light(number) {
    const shown = number === null ? pinned : number;
    for (const element of [...boxes, ...cards]) {
      element.classList.toggle("lit", shown !== null && element.dataset.patch === shown);
    }
  }
  function pin(element) {
    pinned = pinned === element.dataset.patch ? null : element.dataset.patch;
    for (const each of [...boxes, ...cards]) {
      each.setAttribute("aria-pressed", String(each.dataset.patch === pinned));
    }
    light(null);
    const partner = (boxes.includes(element) ? cards : boxes).find((each) => each.dataset.patch === pinned);
    if (partner) partner.scrollIntoView({ block: "nearest" });
  }
  for (const element of [...boxes, ...cards]) {
    element.addEventListener("mouseenter", () => light(element.dataset.patch));
    element.addEventListener("mouseleave", () => light(null));
    element.addEventListener("focus", () => light(element.dataset.patch));
    element.addEventListener("blur", () => light(null));
    element.addEventListener("click", () => pin(element));
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    pinned = null;
    for (const each of [...boxes, ...cards]) each.setAttribute("aria-pressed", "false");
    light(null);
  });

  const map = one("map");
  const opacity = one("opacity");
  if (map && opacity) {
    const show = () => {
      map.style.opacity = opacity.value / 100;
      one("opacity-value").textContent = opacity.value + " %";
    };
    opacity.addEventListener("input", show);
    show();
  }

  const visible = one("show-boxes");
  if (visible) visible.addEventListener("change", () => { one("boxes").hidden = !visible.checked; });

  const draw = one("draw");
  const chosen = one("class");
  const wanted = () => (draw ? draw.value : "0");
  function choose() {
    const hides = (patch) => wanted() !== "all" && String(data.draw[patch]) !== wanted();
    for (const element of boxes) element.hidden = hides(element.dataset.patch);
    for (const element of cards) element.parentElement.hidden = hides(element.dataset.patch);
    for (const element of others) element.hidden = "seed-" + element.dataset.other !== wanted();
    const empty = one("no-cards");
    if (empty) empty.hidden = !wanted().startsWith("seed-");
    contribute();
  }
  function contribute() {
    if (!chosen) return;
    const column = Number(chosen.value);
    for (const card of cards) {
      const value = data.contributions[card.dataset.patch][column];
      card.querySelector(".value").textContent = (value < 0 ? "−" : "+") + Math.abs(value).toPrecision(3);
      const bar = card.querySelector(".track i");
      const share = data.largest > 0 ? 50 * Math.abs(value) / data.largest : 0;
      bar.style.left = (value < 0 ? 50 - share : 50) + "%";
      bar.style.width = share + "%";
      bar.classList.toggle("against", value < 0);
    }
    const sums = data.sums[Number(wanted())];
    one("sum").textContent = sums ? sums[column] : "";
  }
  if (draw) draw.addEventListener("change", choose);
  if (chosen) chosen.addEventListener("change", contribute);
  if (cards.length || others.length) choose();
})();
