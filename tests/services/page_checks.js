// What is wrong with a page for people who use a keyboard, a screen reader, or have weak eyes. A list of sentences.
const problems = [];
const say = (what, element) => problems.push(`${what}: ${element ? element.outerHTML.slice(0, 160) : ""}`);
const all = (selector) => [...document.querySelectorAll(selector)];

if (!document.documentElement.lang) say("no lang");
if (!document.title.trim()) say("no title");
if (all("h1").length !== 1) say(`${all("h1").length} h1`);
for (const landmark of ["header", "main", "footer"])
  if (all(landmark).length !== 1) say(`${all(landmark).length} ${landmark}`);
if (all("nav").length > 1) for (const nav of all("nav")) if (!nav.getAttribute("aria-label")) say("nav without a name", nav);

let level = 0;
for (const heading of all("h1, h2, h3, h4, h5, h6")) {
  const next = Number(heading.tagName[1]);
  if (next > level + 1) say(`h${next} after h${level}`, heading);
  if (!heading.textContent.trim()) say("empty heading", heading);
  level = next;
}
const ids = all("[id]").map((element) => element.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) say(`id ${id} twice`);
for (const attribute of ["aria-labelledby", "aria-describedby"])
  for (const element of all(`[${attribute}]`))
    for (const id of element.getAttribute(attribute).split(" "))
      if (!document.getElementById(id)) say(`${attribute} of nothing`, element);

for (const image of all("img")) if (!image.hasAttribute("alt")) say("no alt", image);
for (const image of all("svg")) if (image.getAttribute("aria-hidden") !== "true") say("svg without a name", image);
for (const field of all("input:not([type=hidden]), select, textarea"))
  if (!field.labels || !field.labels.length) say("no label", field);
for (const element of all("a[href], button, summary"))
  if (!(element.getAttribute("aria-label") || element.textContent).trim()) say("no text", element);
for (const element of all("[tabindex]")) if (element.tabIndex > 0) say("positive tabindex", element);
for (const table of all("table")) {
  if (!table.caption || !table.caption.textContent.trim()) say("no caption", table);
  for (const head of table.querySelectorAll("th")) if (!head.scope) say("no scope", head);
  for (const row of table.querySelectorAll("tbody tr")) if (row.cells[0].tagName !== "TH") say("no row head", row);
}
for (const element of all("time")) if (Number.isNaN(Date.parse(element.dateTime))) say("no datetime", element);
if (all("script, style, [style], [onclick], [onload]").length) say("script or inline style");

if (document.documentElement.scrollWidth > window.innerWidth) {
  const wide = all("body *").find((element) => element.getBoundingClientRect().right > window.innerWidth + 1);
  say(`wider than ${window.innerWidth}`, wide);
}

const channels = (text) => {
  const numbers = text.match(/[\d.]+/g).map(Number);
  const scale = text.startsWith("color(") ? 255 : 1;
  return [...numbers.slice(0, 3).map((number) => number * scale), numbers[3] ?? 1];
};
const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3]));
const background = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.unshift(channels(getComputedStyle(at).backgroundColor));
  return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
};
const luminance = (colour) => {
  const [r, g, b] = colour.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
  const back = background(element);
  const ratio = contrast(over(channels(getComputedStyle(element).color), back), back);
  if (ratio < 4.5) say(`contrast ${ratio.toFixed(2)}`, element);
}
for (const field of all("input:not([type=hidden]), select")) {
  const ratio = contrast(channels(getComputedStyle(field).borderTopColor).slice(0, 3), background(field.parentElement));
  if (ratio < 3) say(`border's contrast ${ratio.toFixed(2)}`, field);
}
return problems;
