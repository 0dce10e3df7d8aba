// The page of a study: it shows a pair, waits for the look, sends the choice, and goes on only when that is stored.
"use strict";

const LONGEST_PAUSE = 8000; // milliseconds between two attempts to reach the server
const SECONDS_TO_CHOOSE = 2; // beside the look, for the estimate of minutes
const SMALLEST_SHOWN = 256; // pixels: images are shown at their own size, smaller ones enlarged to this
const FINAL = ["unknown", "expired", "closed"]; // problems that no further attempt mends

const at = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const sides = { left: at("left"), right: at("right") };

let study; // what the server says of the study
let token; // the secret part of this participant's address
let choose = null; // takes a side while a choice is awaited

class Refused extends Error {
  constructor(reason, wait) {
    super(reason);
    this.reason = reason;
    this.wait = wait;
  }
}

function text(name, values = {}) {
  return study.texts[name].replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

function open(name) {
  for (const screen of document.querySelectorAll("main")) screen.hidden = screen.id !== name;
}

function trouble(name) {
  at("trouble").hidden = name === null;
  at("trouble").textContent = name === null ? "" : text(`problem.${name}`);
}

function problem(name) {
  at("problem-text").textContent = text(`problem.${name}`);
  open("problem");
}

// The server's answer. Where it can't be reached, or can't do what is asked right now, it is asked again until it does.
async function ask(path, method = "GET") {
  for (let wait = 500; ; wait = Math.min(2 * wait, LONGEST_PAUSE)) {
    try {
      const reply = await fetch(path, { method, cache: "no-store" });
      const told = await reply.json();
      if (study) trouble(null);
      if (reply.ok) return told;
      if (reply.status < 500) throw new Refused(told.error, told.wait);
      if (study) trouble(told.error === "image" ? "image" : "storage");
    } catch (error) {
      if (error instanceof Refused) throw error;
      if (study) trouble("waiting");
    }
    await pause(wait);
  }
}

async function showImage(element, source) {
  for (let wait = 500; ; wait = Math.min(2 * wait, LONGEST_PAUSE)) {
    try {
      element.src = source;
      await element.decode();
      trouble(null);
      return;
    } catch {
      trouble("image");
      element.removeAttribute("src");
      await pause(wait);
    }
  }
}

function imagesOf(position) {
  const places = study.middle ? ["left", "middle", "right"] : ["left", "right"];
  return places.map((place) => [place, `/image/${token}/${position}/${place}`]);
}

function chosenSide() {
  return new Promise((resolve) => {
    choose = (side) => {
      choose = null;
      resolve(side);
    };
  });
}

function enable(enabled) {
  for (const [side, button] of Object.entries(sides)) {
    button.disabled = !enabled;
    button.classList.remove("chosen");
    button.setAttribute("aria-label", text(`pair.${side}`));
  }
}

// Look at the images for so many seconds, which the server counts too.
async function look(seconds) {
  at("timer").style.setProperty("--look", `${seconds}s`);
  at("timer").className = "runs";
  at("hint").textContent = text("pair.look", { seconds: Math.ceil(seconds) });
  await pause(1000 * seconds);
  at("timer").className = "";
}

// One pair from its first sight to its stored answer; what the server says of how far we are.
async function onePair({ done, of }) {
  at("number").textContent = text("pair.progress", { number: done + 1, of });
  at("progress").value = done;
  at("progress").max = of;
  at("images").className = study.middle ? "empty" : "empty two";
  at("middle").hidden = !study.middle;
  at("hint").textContent = text("pair.loading");
  enable(false);
  open("pair");
  await Promise.all(imagesOf(done).map(([place, source]) => showImage(at(place).querySelector("img"), source)));
  const [left, middle] = ["left", "middle"].map((place) => at(place).querySelector("img"));
  at("images").style.setProperty("--side", `${Math.max(left.naturalWidth, SMALLEST_SHOWN)}px`);
  at("images").style.setProperty("--ratio", left.naturalWidth / left.naturalHeight);
  middle.className = middle.naturalWidth < left.naturalWidth ? "coarse" : "";
  middle.alt = text("pair.middle");
  at("images").classList.remove("empty");
  let seconds = (await ask(`/api/s/${token}/${done}/shown`, "POST")).look;
  if (done + 1 < of) for (const [, source] of imagesOf(done + 1)) new Image().src = source;
  for (;;) {
    await look(seconds);
    at("hint").textContent = text("pair.choose");
    enable(true);
    const side = await chosenSide();
    enable(false);
    sides[side].classList.add("chosen");
    at("hint").textContent = "";
    try {
      return await ask(`/api/s/${token}/${done}/${side}`, "POST");
    } catch (error) {
      if (!(error instanceof Refused) || error.reason !== "early") throw error;
      seconds = error.wait; // the clocks disagree
    }
  }
}

async function takePart() {
  try {
    let state = await ask(`/api/s/${token}`);
    while (state.done < state.of) {
      try {
        state = await onePair(state);
      } catch (error) {
        if (!(error instanceof Refused) || FINAL.includes(error.reason)) throw error;
        state = await ask(`/api/s/${token}`); // another page of this participant has gone on
      }
    }
    at("finished-text").textContent = text("finished.text", { of: state.of });
    open("finished");
  } catch (error) {
    problem(error.reason ?? "waiting");
  }
}

function clicked(id) {
  return new Promise((resolve) => at(id).addEventListener("click", () => resolve(id), { once: true }));
}

// Says what is to come; whether somebody else than the one remembered wants to start.
async function welcome(done, isRemembered) {
  const minutes = Math.max(1, Math.ceil((study.of * (study.look + SECONDS_TO_CHOOSE)) / 60));
  at("welcome-text").textContent = text("welcome.text", { of: study.of, look: study.look, minutes });
  at("resumed").textContent = text("welcome.resumed", { done, of: study.of });
  at("resumed").hidden = !done;
  at("start").textContent = text(done ? "welcome.resume" : "welcome.start");
  at("other").hidden = !isRemembered;
  open("welcome");
  at("start").focus({ preventScroll: true });
  return (await Promise.race([clicked("start"), clicked("other")])) === "other";
}

async function main() {
  study = await ask("/api/study");
  study.texts.question = study.texts[`question.${study.task}`];
  document.documentElement.lang = study.texts.language;
  document.title = study.texts.title;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  const key = `study-${study.id}`; // an open study remembers its participant
  const hasAddress = location.pathname !== "/";
  token = hasAddress ? location.pathname.slice("/s/".length) : localStorage.getItem(key);
  try {
    let done = 0;
    if (token) {
      try {
        ({ done } = await ask(`/api/s/${token}`));
      } catch (error) {
        if (hasAddress) throw error;
        token = null; // of another database of the same study
      }
    }
    if (!token && !study.open) throw new Refused("closed");
    const isRemembered = Boolean(token) && !hasAddress;
    if ((done < study.of || isRemembered) && (await welcome(done, isRemembered))) token = null;
    if (!token) ({ token } = await ask("/api/join", "POST"));
    if (!hasAddress) {
      localStorage.setItem(key, token);
      history.replaceState(null, "", `/s/${token}`);
    }
    await takePart();
  } catch (error) {
    problem(error.reason ?? "waiting");
  }
}

for (const [side, button] of Object.entries(sides)) button.addEventListener("click", () => choose?.(side));
document.addEventListener("keydown", (event) => {
  const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
  if (!side || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (at("pair").hidden) return;
  event.preventDefault();
  if (!event.repeat) choose?.(side);
});
main();
