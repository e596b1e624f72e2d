// The elements of both pages. Text is always inserted as text, never parsed as HTML.

import { countsText, formatNumber, STATUSES } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/** One path each, in a box of 24 by 24: a status has its own shape as well as its own colour. */
const SHAPES = {
  delivered: "M5 12.5l4.5 4.5L19 7.5",
  already_delivered: "M2 12.5l4 4.5L14 7.5M12 15.5l1.5 1.5L22 7.5",
  rejected: "M6 6l12 12M18 6L6 18",
  invalid: "M12 5v8M12 18v.5",
  changed: "M4 9h13l-3.5-3.5M20 15H7l3.5 3.5",
  undelivered: "M12 19V5M6 11l6-6 6 6",
  unconfirmed: "M8.5 8.5a3.5 3.5 0 1 1 5 3.2c-1 .5-1.5 1.2-1.5 2.3M12 18v.5",
  held: "M9 6v12M15 6v12",
  closed: "M6 6h12v12H6z",
  good: "M5 12.5l4.5 4.5L19 7.5",
  bad: "M6 6l12 12M18 6L6 18",
  wait: "M12 7v5.5l3.5 2M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18",
  active: "M12 3a9 9 0 1 0 9 9",
  quiet: "M6 12h12",
  preview: "M2 12s4-6.5 10-6.5S22 12 22 12s-4 6.5-10 6.5S2 12 2 12M12 9.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5",
};

/** Create an element: `make("p", { class: "note" }, "text", child)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon icon-${name}`);
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", SHAPES[name]);
  svg.append(line);
  return svg;
}

/** The label of a run's status, with a shape and a colour. */
export function badge({ label, tone }) {
  return make("span", { class: `badge tone-${tone}` }, icon(tone), label);
}

/** The label of a delivery status, with its shape and its colour. */
export function statusMark(key, label) {
  return make("span", { class: `mark status-${key}` }, icon(key), label);
}

/** A bar of all statuses; `show(report)` updates it. The part of the events without a final status yet stays empty. */
export function bar() {
  const segments = STATUSES.map(({ key }) => make("span", { class: `segment status-${key}` }));
  const element = make("div", { class: "bar", role: "img" }, ...segments);
  element.show = (report) => {
    const { counts, state, total } = report;
    const all = state === "ended" ? counts.events : Math.max(total + counts.invalid, counts.events);
    element.hidden = all === 0;
    element.setAttribute("aria-label", countsText(report) || "no events yet");
    element.classList.toggle("preview", Boolean(report.preview));
    STATUSES.forEach(({ key }, index) => {
      const number = counts[key] ?? 0;
      segments[index].style.flexBasis = `${(100 * number) / Math.max(all, 1)}%`;
      segments[index].hidden = number === 0;
    });
  };
  return element;
}

/** A large number for each status; `show(counts, statuses)` sets them. */
export function figures() {
  const numbers = new Map(STATUSES.map(({ key }) => [key, make("span", { class: "number" })]));
  const labels = new Map(STATUSES.map(({ key }) => [key, make("span", { class: "label" })]));
  const items = STATUSES.map(({ key }) =>
    make("li", { class: `figure status-${key}`, "data-status": key }, icon(key), numbers.get(key), labels.get(key)),
  );
  const element = make("ul", { class: "figures", "aria-label": "Events by delivery status" }, ...items);
  element.show = (counts, statuses) => {
    statuses.forEach(({ key, label, means }, index) => {
      const number = counts[key] ?? 0;
      numbers.get(key).textContent = formatNumber(number);
      labels.get(key).textContent = label;
      items[index].title = means;
      // The rarer statuses take no room while they have no events.
      items[index].classList.toggle("none", number === 0);
    });
  };
  return element;
}

/** The message shown where there is no report: the reason, and what to do. */
export function emptyState(title, ...lines) {
  return make(
    "section",
    { class: "empty", role: "status" },
    make("img", { src: "icon.svg", alt: "", class: "for-light" }),
    make("img", { src: "icon-dark.svg", alt: "", class: "for-dark" }),
    make("h1", {}, title),
    ...lines.map((line) => make("p", {}, line)),
  );
}
