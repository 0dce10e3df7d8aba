// What has become of a request: how far it is, the image beside what it was made of, files to download, and all that
// was made on this page so far. gradio gives `element`, `props`, `trigger` and `watch`, and parts.js comes before; the
// value is the server's.
const MOST = 50; // images in the history
const made = []; // results, the newest first

const png = (base64) => "data:image/png;base64," + base64;
const status = make("p", { role: "status", class: "status" });
const step = make("progress", { "aria-label": text("result") });
const shown = make("div", { class: "shown" });
const history = make("ul", { class: "history" });
const past = make("section", { "aria-label": text("history") }, make("h2", {}, text("history")), history);
root.replaceChildren(
  make("div", { class: "latentdiff-viewer" }, make("h2", {}, text("result")), status, step, shown, past),
);
[step.hidden, past.hidden, status.textContent] = [true, true, text("empty")];

function say(words, fault) {
  // Each step would be read aloud otherwise.
  status.setAttribute("aria-live", fault || !props.value || props.value.state !== "running" ? "polite" : "off");
  status.classList.toggle("fault", Boolean(fault));
  status.textContent = words;
}

function download(name, base64, label) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const address = URL.createObjectURL(new Blob([bytes]));
  return make("a", { class: "button", href: address, download: name }, label);
}

function picture(result) {
  const after = make("img", { src: png(result.png), alt: result.name, class: "after" });
  if (!result.before) return make("div", { class: "compared" }, after);
  const before = make("img", { src: png(result.before), alt: text("before"), class: "before" });
  const frame = make("div", { class: "compared" }, before, after);
  const slider = make("input", { type: "range", min: 0, max: 100, value: 100, "aria-label": text("compare") });
  slider.addEventListener("input", () => (after.style.clipPath = "inset(0 " + (100 - slider.value) + "% 0 0)"));
  return make("div", {}, frame, slider);
}

function link(result) {
  const address = new URL(location.href);
  const theme = address.searchParams.get("__theme");
  address.search = result.query;
  if (theme) address.searchParams.set("__theme", theme);
  return address.href;
}

function showResult(result) {
  const copy = make("button", { type: "button", class: "button copy" }, text("link"));
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(link(result));
    copy.textContent = text("copied");
  });
  const files = [download(result.name, result.png, text("download"))];
  if (result.inputs) files.push(download(result.inputs.name, result.inputs.content, text("download_inputs")));
  shown.replaceChildren(
    picture(result),
    make("div", { class: "row" }, ...files, copy),
    make("h3", {}, text("command")),
    make("pre", { class: "command", tabindex: 0, "aria-label": text("command") }, result.command),
  );
}

function remember(result) {
  made.unshift(result);
  made.splice(MOST);
  past.hidden = false;
  history.replaceChildren(
    ...made.map((entry) => {
      const name = text("restore", { name: entry.name });
      const image = make("img", { src: png(entry.png), alt: "" });
      const restore = make("button", { type: "button", "aria-label": name, title: entry.command }, image);
      restore.addEventListener("click", () => {
        showResult(entry);
        trigger("restore", { query: Object.fromEntries(new URLSearchParams(entry.query)) });
      });
      return make("li", {}, restore);
    }),
  );
}

function take() {
  const value = props.value;
  if (!value || !value.state) return;
  root.dataset.state = value.state;
  say(value.text || (made.length ? "" : text("empty")), value.fault);
  const running = value.state === "running";
  step.hidden = !running;
  if (running && !value.step) element.scrollIntoView({ block: "nearest" }); // it lies below the controls on telephones
  if (running && value.of) [step.max, step.value] = [value.of, value.step];
  else step.removeAttribute("value");
  if (running && value.preview) {
    const old = shown.querySelector("img.preview");
    if (old) old.src = png(value.preview);
    else shown.replaceChildren(make("img", { class: "preview", src: png(value.preview), alt: text("preview") }));
  }
  if (["failed", "cancelled"].includes(value.state) && shown.querySelector("img.preview")) shown.replaceChildren();
  if (value.state !== "done") return;
  showResult(value);
  remember(value);
  window.history.replaceState(null, "", link(value));
}

watch("value", take);
take();
