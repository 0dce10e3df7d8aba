// What both scripts begin with: their place in the page, its texts, and how elements are made.
const root = element.querySelector(".latentdiff-part");

const text = (name, values = {}) =>
  Object.entries(values).reduce((all, [key, value]) => all.replace("{" + key + "}", value), props.texts[name]);

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

