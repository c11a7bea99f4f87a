// Moves the bars of a `.bars` box: counts come from the rows of each pair of scores that the box carries.
"use strict";

const DECISIONS = ["keep", "replace", "drop", "failed"];

function decision(policy, web, synthetic, noLess, there) {
  if (policy === "keep-web") synthetic = false;
  else if (policy === "both") [web, synthetic] = [(web || synthetic) && there, web || synthetic];
  else if (policy === "best") web = web && (noLess || !synthetic);
  return web ? "keep" : synthetic ? "replace" : "drop";
}

function counted(bars, web, synthetic) {
  const found = { keep: 0, replace: 0, drop: 0, failed: 0, ...bars.fixed };
  for (const [level, other, noLess, rows] of bars.cells) {
    found[decision(bars.policy, level > web, other > synthetic, noLess === 1, level > 0)] += rows;
  }
  return found;
}

function livenBars(box) {
  const bars = JSON.parse(box.dataset.bars);
  const digits = Math.max(2, -Math.floor(Math.log10(bars.step)));
  const sliders = [...box.querySelectorAll("[data-bar]")];
  const show = () => {
    for (const slider of sliders) {
      const value = (bars.low + slider.value * bars.step).toFixed(digits);
      slider.closest("label").querySelector(".value").textContent = value;
      slider.setAttribute("aria-valuetext", value);
    }
    const [web, synthetic] = sliders.map((slider) => Number(slider.value));
    const found = counted(bars, web, synthetic);
    const every = DECISIONS.reduce((sum, name) => sum + found[name], 0) || 1;
    let x = 0;
    for (const name of DECISIONS) {
      const share = found[name] / every;
      const part = box.querySelector(`[data-of="${name}"]`);
      part.setAttribute("x", 1000 * x);
      part.setAttribute("width", 1000 * share);
      x += share;
      box.querySelector(`[data-count="${name}"]`).textContent = found[name].toLocaleString("en");
      box.querySelector(`[data-share="${name}"]`).textContent = `${(100 * share).toFixed(1)} %`;
    }
  };
  for (const slider of sliders) slider.addEventListener("input", show);
  box.hidden = false;
  show();
}

document.querySelectorAll(".bars[data-bars]").forEach(livenBars);
