// The theme's toggles of the side bar are pictures: say what they do.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  for (const toggle of document.querySelectorAll("summary > .toctree-toggle")) {
    const link = toggle.closest("li")?.querySelector("a");
    toggle.parentElement.setAttribute("aria-label", `Pages below ${link ? link.textContent.trim() : "this one"}`);
  }
});
