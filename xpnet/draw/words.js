"use strict";

// Every text of the page, in each language. Elements with `data-word` show one; {names} are filled in.

const WORDS = {
  en: {
    other: "한국어",
    title: "Draw, and see what a neural network sees",
    about: "A network of {sizes} units, with {parameters} weights and biases.",
    aboutTest: "It is right on {right} of {rows} test pictures ({share}).",
    pad: "Drawing area",
    padKeys: "Arrow keys move a cursor, Space puts the pen down and lifts it, Backspace undoes, Delete clears.",
    hint: "Draw here",
    hintHow: "with a mouse, a finger or a pen",
    undo: "Undo",
    clear: "Clear",
    answer: "Answer",
    nothing: "Nothing drawn yet",
    noAnswer: "No answer: the outputs are not finite",
    noLabel: "no label",
    truth: "correct answer: {truth}",
    inside: "Inside the network",
    seen: "What the network sees",
    seenDigit: "{side} × {side} pixels: cropped, scaled, centred",
    seenPlain: "the drawing as {side} × {side} pixels",
    seenExample: "{side} × {side} pixels, a test picture of {truth}",
    reasons: "Pixels that speak for {name}",
    reasonsHow: "gradient × input",
    weights: "Weights of unit {unit}, layer {layer}",
    weightsOfOutput: "Weights of the output {name}",
    weightsHow: "one for each unit of layer {before}",
    weightsOfPixels: "one for each pixel",
    unitReasons: "Pixels that speak for this unit",
    value: "its value here is {value}",
    raises: "raises",
    lowers: "lowers",
    layers: "Layers",
    layersHow: "Choose a unit by touch, or by Tab and arrow keys: its weights are shown above.",
    layer: "Layer {layer}",
    layerIs: "{units} units, {kind}",
    unitIs: "unit {unit}, value {value}",
    examples: "Test pictures",
    right: "read right",
    wrong: "misread",
    exampleIs: "Test picture of {truth}",
    output: "output {number}",
    noScript: "This page needs JavaScript.",
  },
  ko: {
    other: "English",
    title: "그림을 그리면 신경망이 읽는다",
    about: "뉴런 수가 {sizes}인 신경망이다. 가중치와 편향은 모두 {parameters}개이다.",
    aboutTest: "테스트 그림 {rows}장 중 {right}장을 맞힌다({share}).",
    pad: "그리는 곳",
    padKeys: "화살표 키로 커서를 옮기고, 스페이스 바로 펜을 대거나 뗀다. Backspace 키로 되돌리고, Delete 키로 모두 지운다.",
    hint: "여기에 그린다",
    hintHow: "마우스, 손가락, 펜 모두 쓸 수 있다",
    undo: "되돌리기",
    clear: "모두 지우기",
    answer: "답",
    nothing: "아직 그린 것이 없다",
    noAnswer: "답이 없다. 출력이 유한한 수가 아니다",
    noLabel: "해당하는 레이블 없음",
    truth: "정답: {truth}",
    inside: "신경망 들여다보기",
    seen: "신경망이 보는 그림",
    seenDigit: "{side} × {side} 픽셀. 잘라서 크기를 맞추고 가운데에 놓았다",
    seenPlain: "그린 것을 {side} × {side} 픽셀로 줄였다",
    seenExample: "{side} × {side} 픽셀. 테스트 그림, 정답은 {truth}",
    reasons: "{name}의 근거가 되는 픽셀",
    reasonsHow: "기울기 × 입력",
    weights: "{layer}층 {unit}번 뉴런의 가중치",
    weightsOfOutput: "출력 {name}의 가중치",
    weightsHow: "{before}층의 뉴런마다 하나씩",
    weightsOfPixels: "픽셀마다 하나씩",
    unitReasons: "이 뉴런의 근거가 되는 픽셀",
    value: "지금 값은 {value}",
    raises: "높인다",
    lowers: "낮춘다",
    layers: "층",
    layersHow: "뉴런을 누르거나, Tab 키와 화살표 키로 고른다. 고른 뉴런의 가중치가 위에 나온다.",
    layer: "{layer}층",
    layerIs: "{kind} 뉴런 {units}개",
    unitIs: "{unit}번 뉴런, 값 {value}",
    examples: "테스트 그림",
    right: "맞힌 것",
    wrong: "틀린 것",
    exampleIs: "테스트 그림, 정답은 {truth}",
    output: "출력 {number}",
    noScript: "이 페이지를 보려면 자바스크립트가 필요하다.",
  },
};

let language = navigator.language?.toLowerCase().startsWith("ko") ? "ko" : "en";

/** A text in the page's language, with {names} replaced by `values`. */
function words(name, values = {}) {
  return WORDS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

const formatted = (value, options) => new Intl.NumberFormat(language, options).format(value);
const percent = (share) => formatted(share, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const decimal = (value) => formatted(value, { maximumSignificantDigits: 3 });

/** Fill every element that has `data-word`. */
function translate() {
  document.documentElement.lang = language;
  document.title = words("title");
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = words(element.dataset.word);
}
