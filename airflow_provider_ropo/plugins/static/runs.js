// The latest runs of every task that reports to Ropo One, as far as the viewer may see them.

import { fetchLatest, fetchReport, fetchTask, HttpError, isFinal, navigateParent, poll, reportUrl } from "./airflow.js";
import { badge, bar, emptyState, make } from "./elements.js";
import { isRecent, isWanted, makeFilters } from "./filters.js";
import { openEvents } from "./open_events.js";
import {
  destinationText,
  formatNumber,
  formatTime,
  progressText,
  quantity,
  runStatus,
  STATUSES,
} from "./words.js";

/** Runs that are looked at, at first and with each "more". */
const STEP = 50;
/** Requests at the same time; few, to keep the load on Airflow low. */
const MAX_CONCURRENT = 6;
/** Milliseconds between two refreshes: while a run is in progress, and while none is. */
const SHORT_DELAY = 5000;
const LONG_DELAY = 30_000;

const OPEN_NOW =
  "“Open now” follows from the reports of later runs of the same task. What a person settled in the ledger, or " +
  "sent in another way, is not known here.";

const page = document.getElementById("runs");
/** Runs that have been fetched; one is used again until its report or its task instance changes. */
const cache = new Map();
const filters = makeFilters(restart);
const more = make("button", { type: "button" }, `Look at ${STEP} more`);
const list = make("section", {});
const summary = make("p", { class: "about", role: "status" });
const about = "The latest runs of each task that reports to Ropo One, newest first";
const frame = [
  make("header", {}, make("h1", {}, "Ropo One"), make("p", { class: "about" }, about)),
  filters.element,
  list,
  make("footer", {}, summary, more, make("p", { class: "about" }, OPEN_NOW)),
];
let count = STEP;
let shownContent = "";

more.addEventListener("click", () => {
  count += STEP;
  refreshNow();
});

function restart() {
  count = STEP;
  refreshNow();
}

async function refresh() {
  try {
    const { dag } = filters.values;
    const wanted = { dag, isRecent: ({ timestamp }) => isRecent(filters.values, timestamp) };
    const { entries, hasMore } = await fetchLatest(count, wanted);
    const runs = (await mapConcurrently(entries, fetchRun)).filter(Boolean);
    show(runs, hasMore);
    return runs.some(({ task, report }) => report && !isFinal(task.state)) ? SHORT_DELAY : LONG_DELAY;
  } catch (error) {
    return showError(error);
  }
}

/** Call an asynchronous function for each item, a few at a time; the results are in the order of the items. */
async function mapConcurrently(items, callback) {
  const results = [];
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const index = next++;
      results[index] = await callback(items[index]);
    }
  };
  await Promise.all(Array.from({ length: MAX_CONCURRENT }, worker));
  return results;
}

/** Fetch the run of one XCom entry; null if it no longer exists, or if the viewer may not see it. */
async function fetchRun(entry) {
  const ids = { dagId: entry.dag_id, runId: entry.run_id, taskId: entry.task_id, mapIndex: entry.map_index };
  const name = JSON.stringify(ids);
  const cached = cache.get(name);
  if (cached && cached.entry.timestamp === entry.timestamp && isFinal(cached.task.state)) {
    return cached;
  }
  try {
    const task = await fetchTask(ids);
    const published = await fetchReport(ids);
    const run = published && { ids, entry, task, ...published };
    cache.set(name, run);
    return run;
  } catch (error) {
    if (error instanceof HttpError && [403, 404].includes(error.status)) {
      return null;
    }
    if (error instanceof HttpError && error.status !== 401) {
      // One run that Airflow cannot give must not hide the others.
      return { ids, entry, task: { state: null }, report: null, stored: null };
    }
    throw error;
  }
}

function showError(error) {
  if (!(error instanceof HttpError) || ![401, 403].includes(error.status)) {
    if (!shownContent) {
      page.replaceChildren(emptyState("Airflow does not answer", "This page will try again automatically."));
    }
    return LONG_DELAY;
  }
  shownContent = String(error.status);
  if (error.status === 401) {
    page.replaceChildren(emptyState("You are signed out", "Reload Airflow's page to sign in."));
    return null;
  }
  page.replaceChildren(
    emptyState("You do not have access", "Reports are XComs, and you may not read the XComs of any DAG."),
  );
  return null;
}

function show(runs, hasMore) {
  const found = runs.map((run) => ({ ...run, open: openEvents(run, runs) }));
  const wanted = found.filter((run) => isWanted(filters.values, run));
  const rows = wanted.map(({ ids, task, report, open }) => [ids, task.state, report, open]);
  const content = JSON.stringify([rows, runs.length, hasMore, filters.values]);
  if (content === shownContent) {
    return;
  }
  if (!frame[0].isConnected) {
    page.replaceChildren(...frame);
  }
  shownContent = content;
  filters.offer(runs.map(({ ids, entry }) => entry.dag_display_name ?? ids.dagId));
  const isFiltered = Object.values(filters.values).some(Boolean);
  list.replaceChildren(wanted.length ? table(wanted) : nothing(isFiltered));
  summary.textContent = runs.length ? summaryText(found, wanted, isFiltered) : "";
  more.hidden = !hasMore;
}

function summaryText(found, wanted, isFiltered) {
  const runs = quantity(found.length, "run");
  const open = `${formatNumber(found.filter((run) => run.open.isOpen).length)} may have open events.`;
  const matching = `${formatNumber(wanted.length)} of the latest ${runs} match the filters`;
  return `${isFiltered ? matching : `The latest ${runs}`}; ${open}`;
}

function nothing(isFiltered) {
  return isFiltered
    ? emptyState("No run matches the filters", "Change the filters, or look at more runs.")
    : emptyState("No reports yet", "The runs of UsageplaceEventOperators that you may see will be listed here.");
}

function table(runs) {
  // A status that none of the runs has needs no column. In a preview, "undelivered" means "would be posted".
  const statuses = STATUSES.filter(
    ({ key }) => key === "delivered" || runs.some(({ report }) => report && countOf(report, key)),
  );
  const headings = ["Run", "Updated", "Result", "Open now", ...statuses.map(({ label }) => label)];
  return make(
    "table",
    { role: "table" },
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...headings.map(headerCell))),
    make("tbody", { role: "rowgroup" }, ...runs.map((run) => rowOf(run, statuses))),
  );
}

function countOf(report, key) {
  return report.preview && key === "undelivered" ? null : (report.counts[key] ?? 0);
}

function headerCell(name, index) {
  return make("th", { scope: "col", role: "columnheader", class: index > 2 ? "count" : null }, name);
}

function rowOf({ ids, entry, task, report, stored, open }, statuses) {
  const time = make("time", { datetime: entry.timestamp }, formatTime(report?.updated_at ?? entry.timestamp));
  return make(
    "tr",
    { role: "row", class: report?.preview ? "preview" : null },
    make("td", { role: "cell", class: "name" }, reportLink(ids, entry), report && destination(report)),
    make("td", { role: "cell", class: "time" }, time),
    make("td", { role: "cell", class: "result" }, ...(report ? result(report, task) : [unreadable(stored)])),
    openCell(open),
    ...statuses.map(({ key, label }) => countCell(key, label, report ? countOf(report, key) : null)),
  );
}

function openCell({ text, means, isOpen }) {
  const none = isOpen ? "" : " none";
  return make("td", { role: "cell", class: `count open${none}`, "data-name": "Open now", title: means }, text);
}

function destination(report) {
  const text = destinationText(report);
  return text ? make("span", { class: "detail" }, `to ${text}`) : null;
}

function result(report, task) {
  const status = runStatus(report, task.state, task.state !== "running");
  const statusBar = bar();
  const posting = status.tone === "active" && report.state === "posting";
  statusBar.show(report);
  const sentence = posting ? progressText(report) : status.sentence;
  return [make("div", {}, badge(status), make("span", {}, sentence)), statusBar];
}

function unreadable(stored) {
  const text = stored
    ? "An XCom backend keeps this report outside Airflow's database."
    : "Airflow does not give this report.";
  return make("div", {}, badge({ label: "Not readable", tone: "quiet" }), make("span", {}, text));
}

/** A link to the run's report: the names of the DAG, the task and the run. */
function reportLink(ids, { dag_display_name: dagName, task_display_name: taskName }) {
  const mapped = ids.mapIndex < 0 ? "" : ` [${ids.mapIndex}]`;
  const task = make("span", { class: "detail" }, `${taskName ?? ids.taskId}${mapped}`);
  const run = make("span", { class: "detail" }, ids.runId);
  return navigateParent(make("a", { href: reportUrl(ids), target: "_top" }, dagName ?? ids.dagId, task, run));
}

function countCell(key, label, number) {
  const none = number ? "" : " none";
  const text = number === null ? "–" : formatNumber(number);
  return make("td", { role: "cell", class: `count status-${key}${none}`, "data-name": label }, text);
}

const refreshNow = poll(refresh);
