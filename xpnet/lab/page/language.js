// The page's language: the reader's last choice, or else the browser's. Runs in the head, before anything is shown.
"use strict";

const root = document.documentElement;

function remembered() {
  try {
    return localStorage.getItem("language");
  } catch { // a browser may forbid a page to remember
    return null;
  }
}

root.lang = remembered() ?? (navigator.language.startsWith("ko") ? "ko" : "en");

// Texts in attributes have both languages too: data-en and data-ko go to the attribute that data-for names.
function speak(language) {
  root.lang = language;
  for (const element of document.querySelectorAll("[data-for]")) {
    element.setAttribute(element.dataset.for, element.dataset[language]);
  }
  for (const button of document.querySelectorAll(".language button")) {
    button.setAttribute("aria-pressed", String(button.value === language));
  }
  document.title = document.querySelector(`h1 [lang=${language}]`).textContent;
}

addEventListener("DOMContentLoaded", () => {
  speak(root.lang);
  for (const button of document.querySelectorAll(".language button")) {
    button.addEventListener("click", () => {
      speak(button.value);
      try {
        localStorage.setItem("language", button.value);
      } catch {} // then the choice lasts until the page is left
    });
  }
});
