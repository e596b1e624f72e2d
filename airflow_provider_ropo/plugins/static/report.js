// One task instance's report, as a tab on its page.

import { askReport, askTask, isFinal, keepLooking, namedIn, Refused } from "./airflow.js";
import { badge, bar, emptiness, figures, icon, make, statusMark } from "./elements.js";
import { count, moment, pace, present, some, standing, statusesFor } from "./words.js";

/** Milliseconds between two looks: at a task that runs or is about to, and at one that waits for its next try. */
const SOON = 2000;
const LATER = 10_000;

const page = document.getElementById("report");
const ids = namedIn(window.location.search);
const view = makeView();
let shown = "";

/** Show something only where it differs from what is there: a selection or a scroll position is not lost to a poll. */
function show(what, ...nodes) {
  if (what !== shown) {
    shown = what;
    page.replaceChildren(...nodes);
  }
}

async function look() {
  try {
    // The task instance first: the last report is left before the task ends.
    const task = await askTask(ids);
    const report = await askReport(ids);
    if (report === null) {
      showNothing(task);
    } else {
      show("report", ...view.nodes);
      view.update(report, task);
    }
    return isFinal(task.state) ? null : task.state === "up_for_retry" ? LATER : SOON;
  } catch (error) {
    return showTrouble(error);
  }
}

function showNothing({ state, operator }) {
  if (state === "running") {
    return show("begun", emptiness("The task has just begun", "Its report appears here in a moment."));
  }
  if (isFinal(state)) {
    return show(
      "none",
      emptiness(
        "No report",
        `This task (${operator ?? "of an unknown operator"}) has left none.`,
        "A UsageplaceEventOperator leaves one, unless it ends before it begins to read or is told to push no XComs.",
      ),
    );
  }
  return show("soon", emptiness("Not started yet", "The report appears here as soon as the task runs."));
}

function showTrouble(error) {
  if (!(error instanceof Refused) || ![401, 403, 404, 422].includes(error.status)) {
    // For the moment, nobody can say. What is shown stays; the next look may succeed.
    if (!shown) {
      show("away", emptiness("Airflow does not answer", "This page asks again."));
    }
    return LATER;
  }
  if (error.status === 401) {
    show("401", emptiness("You are signed out", "Load Airflow's page again to sign in."));
  } else if (error.status === 403) {
    show("403", emptiness("Not for you to see", "You may not read the XComs of this DAG, where its report is."));
  } else {
    show("404", emptiness("No such task instance", "Of a mapped task, choose one instance first."));
  }
  return null;
}

function makeView() {
  const badgeSpot = make("span", { class: "badge-spot" });
  const sentence = make("h1");
  const about = make("p", { class: "about" });
  const stopped = make("p", { class: "note look-bad", hidden: "" });
  const cutShort = make("p", { class: "note look-wait", hidden: "" });
  const theBar = bar();
  const progress = make("p", { class: "progress", role: "progressbar", "aria-label": "Events done", hidden: "" });
  const theFigures = figures();
  const todo = make("ul", { class: "todo", "aria-label": "What is to be done", hidden: "" });
  const failures = make("section", { class: "failures", hidden: "" });
  let listedFailures = "";

  function update(report, task) {
    const { counts } = report;
    const final = task.state !== "running";
    const underWay = report.state !== "ended" && !final;
    const how = standing(report, task.state, final);
    say(badgeSpot, how.word, () => badge(how));
    say(sentence, how.sentence);
    about.replaceChildren(...aboutIt(report));
    noteOn(stopped, report.stopped && `It ended early: ${report.stopped}`);
    noteOn(cutShort, report.state !== "ended" && final && CUT_SHORT);
    theBar.show(report);
    progress.hidden = !(underWay && report.state === "posting");
    showProgress(progress, report);
    theFigures.show(counts, statusesFor(report));
    theFigures.hidden = counts.events === 0 && !underWay;
    todo.replaceChildren(...(underWay ? [] : present(counts, report).filter(({ todo: text }) => text).map(toDo)));
    todo.hidden = todo.childElementCount === 0;
    const now = JSON.stringify([report.failures, report.not_good]);
    if (now !== listedFailures) {
      listedFailures = now;
      failures.replaceChildren(...tableOf(report));
      failures.hidden = report.failures.length === 0;
    }
  }

  const head = make("header", {}, make("div", { class: "standing", role: "status" }, badgeSpot, sentence), about);
  return { nodes: [head, stopped, cutShort, theBar, progress, theFigures, todo, failures], update };
}

const CUT_SHORT =
  "It was killed, or lost its worker. These are the last figures it left; what was in flight then may have arrived.";

/** Change an element only where its text changes, so that a screen reader says nothing twice. */
function say(element, text, made = () => text) {
  if (element.textContent !== text) {
    element.replaceChildren(made());
  }
}

function noteOn(element, text) {
  element.hidden = !text;
  say(element, text || "", () => make("span", {}, text || ""));
}

function aboutIt(report) {
  const facts = [make("span", {}, `${some(report.counts.rows, "row")} read`)];
  if (report.server) {
    facts.push(make("span", {}, report.server.replace(/^https:\/\//, "")));
  }
  const time = make("time", { datetime: report.updated_at }, moment(report.updated_at));
  facts.push(make("span", {}, report.state === "ended" ? "ended " : "as of ", time));
  return facts;
}

function showProgress(element, report) {
  element.textContent = pace(report);
  element.setAttribute("aria-valuemin", "0");
  element.setAttribute("aria-valuemax", String(report.total));
  element.setAttribute("aria-valuenow", String(report.done));
  element.setAttribute("aria-valuetext", element.textContent);
}

function toDo({ key, label, number, todo }) {
  return make("li", {}, statusMark(key, `${count(number)} ${label.toLowerCase()}`), " ", make("span", {}, todo));
}

const COLUMNS = [
  ["Event", "id"],
  ["Usage place", "usageplacecode"],
  ["Status", "status"],
  ["Reason", "detail"],
  ["HTTP", "http_status"],
];

function tableOf({ failures, not_good: total }) {
  const labels = Object.fromEntries(statusesFor({}).map(({ key, label }) => [key, label]));
  const caption = failures.length < total ? `The first ${count(failures.length)} of ${count(total)}` : `${count(total)}`;
  const head = COLUMNS.map(([name, key]) => make("th", { scope: "col", class: key }, name));
  const rows = failures.map((failure) =>
    make("tr", {}, ...COLUMNS.map(([name, key]) => cell(name, key, failure[key], labels))),
  );
  // The roles are those of the elements; on a narrow screen, where rows are laid out as cards, they have to be said.
  return [
    make("h2", {}, `${caption} not at Ropo One`),
    make(
      "table",
      { role: "table" },
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...head)),
      make("tbody", { role: "rowgroup" }, ...rows),
    ),
  ];
}

function cell(name, key, value, labels) {
  const missing = value === null || value === undefined || value === "";
  const content = key === "status" ? statusMark(value, labels[value] ?? value) : missing ? "–" : String(value);
  return make("td", { role: "cell", class: missing ? `${key} missing` : key, "data-name": name }, content);
}

keepLooking(look);
