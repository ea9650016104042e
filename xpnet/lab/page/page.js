// Pictures in a dialog, and the contents, which are folded where the window is narrow.
"use strict";

const dialog = document.querySelector("dialog");

for (const link of document.querySelectorAll("a.enlarge")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const small = link.querySelector("img");
    const large = dialog.querySelector("img");
    large.src = small.src;
    large.alt = small.alt;
    dialog.showModal(); // Escape closes it, and the focus goes back to the link
  });
}
dialog.addEventListener("click", () => dialog.close());

const contents = document.querySelector("nav details");
const wide = matchMedia("(min-width: 70rem)");
wide.addEventListener("change", () => { contents.open = wide.matches; });
contents.open = wide.matches;
contents.addEventListener("click", (event) => {
  if (event.target.closest("a") && !wide.matches) contents.open = false;
});
