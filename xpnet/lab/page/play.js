// What the four parts to play with share: their controls, their readings, and drawing again when either changes.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

// Join a form to a function from the values of its controls to its result.
//   compute(values): all numbers of the result; the form keeps it as `result`, for tests
//   show(result, values, form): draws them
function play(name, compute, show) {
  const form = document.getElementById(`play-${name}`);
  if (form === null) return;
  const values = () => Object.fromEntries(
    [...form.elements].filter((control) => control.matches("input, select")).map((control) =>
      [control.name, control.matches("input") ? chosen(control) : control.value]));
  const update = () => {
    const now = values();
    for (const slider of form.querySelectorAll("input")) {
      const text = brief(now[slider.name]);
      form.elements[`${slider.name}-shown`].value = text;
      slider.setAttribute("aria-valuetext", text);
    }
    form.result = { ...now, ...compute(now) };
    show(form.result, form);
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  new ResizeObserver(() => show(form.result, form)).observe(form);
  update();
}

// The number that a slider stands at: its own, or that of a list.
function chosen(slider) {
  const list = slider.dataset.list;
  return list === undefined ? Number(slider.value) : JSON.parse(list)[Number(slider.value)];
}

// Set a reading to a number or a text; one that names a state shows the words of that state.
function tell(form, name, value) {
  const output = form.elements[name];
  const states = output.querySelectorAll("[data-state]");
  if (states.length === 0) output.value = typeof value === "number" ? brief(value) : value;
  for (const state of states) state.hidden = state.dataset.state !== value;
}
