// The report of one task instance, a tab on its page.

import { fetchReport, fetchTask, HttpError, idsFromQuery, isFinal, poll } from "./airflow.js";
import { badge, bar, emptyState, figures, make, statusMark } from "./elements.js";
import { interruption, nextSteps, statusStep } from "./next_steps.js";
import { settleSection } from "./settle.js";
import {
  destinationText,
  formatNumber,
  formatTime,
  progressText,
  quantity,
  runStatus,
  statusesFor,
  statusesWithEvents,
  timeSentences,
} from "./words.js";

/** Milliseconds between two refreshes: while the task runs or is about to, and while it waits for its next try. */
const SHORT_DELAY = 2000;
const LONG_DELAY = 10_000;

const page = document.getElementById("report");
const ids = idsFromQuery(window.location.search);
const view = makeView();
let shownView = "";

/** Replace the page's content, but only by another view: a refresh must not lose a selection or a scroll position. */
function show(name, ...nodes) {
  if (name !== shownView) {
    shownView = name;
    page.replaceChildren(...nodes);
  }
}

async function refresh() {
  try {
    // The task instance first: a task publishes its last report before it ends.
    const task = await fetchTask(ids);
    const published = await fetchReport(ids);
    if (published === null) {
      showNoReport(task);
    } else if (published.report === null) {
      showElsewhere(published.stored);
    } else {
      show("report", ...view.nodes);
      view.update(published, task);
    }
    return isFinal(task.state) ? null : task.state === "up_for_retry" ? LONG_DELAY : SHORT_DELAY;
  } catch (error) {
    return showError(error);
  }
}

function showNoReport({ state, operator }) {
  if (state === "running") {
    return show("started", emptyState("The task has just started", "Its report will appear here in a moment."));
  }
  if (isFinal(state)) {
    return show(
      "none",
      emptyState(
        "No report",
        `This task (${operator ?? "of an unknown operator"}) has not published a report.`,
        "A UsageplaceEventOperator publishes one, unless it ends before it starts to read or has do_xcom_push=False.",
      ),
    );
  }
  return show("waiting", emptyState("Not started yet", "The report will appear here as soon as the task runs."));
}

function showElsewhere(stored) {
  show(
    "elsewhere",
    emptyState(
      "The report is stored elsewhere",
      "An XCom backend of this Airflow keeps the report outside Airflow's database, and Airflow's API gives only " +
        `what stands in its place: ${stored}`,
      "The task's log has the counts and the reasons. With XComObjectStorageBackend, an xcom_objectstorage_threshold " +
        "of 150000 bytes or more keeps each report in the database.",
    ),
  );
}

function showError(error) {
  if (!(error instanceof HttpError) || ![401, 403, 404, 422].includes(error.status)) {
    // The error may be temporary: the current view stays, and the next refresh may succeed.
    if (!shownView) {
      show("unavailable", emptyState("Airflow does not answer", "This page will try again automatically."));
    }
    return LONG_DELAY;
  }
  if (error.status === 401) {
    show("401", emptyState("You are signed out", "Reload Airflow's page to sign in."));
  } else if (error.status === 403) {
    const reason = "The report is an XCom, and you may not read the XComs of this DAG.";
    show("403", emptyState("You do not have access", reason));
  } else {
    show("404", emptyState("Task instance not found", "For a mapped task, first choose one of its instances."));
  }
  return null;
}

function makeView() {
  const statusBadge = make("span");
  const sentence = make("h1");
  const facts = make("p", { class: "about" });
  const times = make("p", { class: "about times", hidden: "" });
  const stopped = make("p", { class: "note tone-bad", hidden: "" });
  const interrupted = make("p", { class: "note tone-wait", hidden: "" });
  const statusBar = bar();
  const progress = make("p", { class: "progress", role: "progressbar", "aria-label": "Progress", hidden: "" });
  const statusFigures = figures();
  const elsewhere = make("p", { class: "note tone-quiet", hidden: "" });
  const next = make("section", { class: "next", hidden: "" });
  const todo = make("ul", { class: "todo", "aria-label": "What to do next", hidden: "" });
  const failures = make("section", { class: "failures", hidden: "" });
  const settle = settleSection();
  let shownFailures = "";

  function update({ report, stored, age }, task) {
    const { counts } = report;
    const tryEnded = task.state !== "running";
    const running = report.state !== "ended" && !tryEnded;
    const status = runStatus(report, task.state, tryEnded);
    setText(statusBadge, status.label, () => badge(status));
    setText(sentence, status.sentence);
    facts.replaceChildren(...factsOf(report));
    showNote(stopped, report.stopped && `The run ended early: ${report.stopped}`);
    showNote(interrupted, interruption(report, task, age));
    showNote(elsewhere, stored && elsewhereText(stored));
    statusBar.show(report);
    progress.hidden = !(running && report.state === "posting");
    showProgress(progress, report);
    statusFigures.show(counts, statusesFor(report));
    statusFigures.classList.toggle("preview", Boolean(report.preview));
    statusFigures.hidden = counts.events === 0 && !running;
    times.replaceChildren(...timeSentences(report).map((text) => make("span", {}, text)));
    times.hidden = times.childElementCount === 0;
    showNext(next, tryEnded ? nextSteps(report, task) : []);
    const statuses = running || report.preview ? [] : statusesWithEvents(counts).filter(({ good }) => !good);
    todo.replaceChildren(...statuses.map((status) => todoItem(status, report)));
    todo.hidden = todo.childElementCount === 0;
    const newFailures = JSON.stringify([report.failures, report.not_good]);
    if (newFailures !== shownFailures) {
      shownFailures = newFailures;
      failures.replaceChildren(...failureTable(report));
      failures.hidden = report.failures.length === 0;
    }
    settle.update(tryEnded ? report : null);
  }

  const head = make("header", {}, make("div", { class: "run-status", role: "status" }, statusBadge, sentence), facts);
  const notes = [stopped, interrupted, elsewhere];
  const nodes = [head, ...notes, statusBar, progress, statusFigures, times, next, todo, failures, settle.element];
  return { nodes, update };
}

function elsewhereText(stored) {
  return (
    "An XCom backend of this Airflow keeps the whole report outside Airflow's database. These are its figures; the " +
    `events that failed are in the task's log, and here: ${stored}`
  );
}

function showNext(element, sentences) {
  const text = sentences.join(" ");
  element.hidden = text === "";
  if (element.textContent !== `${NEXT}${text}`) {
    element.replaceChildren(make("h2", {}, NEXT), make("p", {}, text));
  }
}

const NEXT = "What happens next";

/** Change an element only if its text changes, so that a screen reader reads nothing twice. */
function setText(element, text, makeContent = () => text) {
  if (element.textContent !== text) {
    element.replaceChildren(makeContent());
  }
}

function showNote(element, text) {
  element.hidden = !text;
  setText(element, text || "", () => make("span", {}, text || ""));
}

function factsOf(report) {
  const facts = [make("span", {}, `${quantity(report.counts.rows, "row")} read`)];
  const destination = destinationText(report);
  if (destination) {
    facts.push(make("span", {}, `to ${destination}`));
  }
  if (report.ledger) {
    facts.push(make("span", {}, `ledger ${report.ledger.table} (connection ${report.ledger.conn_id})`));
  } else if (report.ledger === null) {
    facts.push(make("span", {}, "no ledger"));
  }
  const time = make("time", { datetime: report.updated_at }, formatTime(report.updated_at));
  facts.push(make("span", {}, report.state === "ended" ? "ended " : "as of ", time));
  return facts;
}

function showProgress(element, report) {
  element.textContent = progressText(report);
  element.setAttribute("aria-valuemin", "0");
  element.setAttribute("aria-valuemax", String(report.total));
  element.setAttribute("aria-valuenow", String(report.done));
  element.setAttribute("aria-valuetext", element.textContent);
}

function todoItem({ key, label, number }, report) {
  const text = make("span", {}, statusStep(key, report));
  return make("li", {}, statusMark(key, `${formatNumber(number)} ${label.toLowerCase()}`), " ", text);
}

const COLUMNS = [
  ["Event", "id"],
  ["Usage place", "usageplacecode"],
  ["Status", "status"],
  ["Reason", "detail"],
  ["HTTP", "http_status"],
];

function failureTable({ failures, not_good: total, preview }) {
  const labels = Object.fromEntries(statusesFor({}).map(({ key, label }) => [key, label]));
  const limit = failures.length < total ? `First ${formatNumber(failures.length)} of ` : "";
  const head = COLUMNS.map(([name, key]) => make("th", { scope: "col", class: key }, name));
  const rows = failures.map((failure) =>
    make("tr", {}, ...COLUMNS.map(([name, key]) => cell(name, key, failure[key], labels))),
  );
  // The elements have these roles anyway, but lose them on a narrow screen, where rows are shown as cards.
  return [
    make("h2", {}, `${limit}${quantity(total, "event")} ${preview ? "that would not be posted" : "not at Ropo One"}`),
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

poll(refresh);
