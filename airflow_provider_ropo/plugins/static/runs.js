// The latest runs of every task that reports to Ropo One, as far as the viewer may see them.

import { fetchLatest, fetchReport, fetchTask, HttpError, isFinal, navigateParent, poll, reportUrl } from "./airflow.js";
import { badge, bar, emptyState, make } from "./elements.js";
import { formatNumber, formatTime, progressText, runStatus, STATUSES } from "./words.js";

const MAX_RUNS = 50;
/** Requests at the same time; few, to keep the load on Airflow low. */
const MAX_CONCURRENT = 6;
/** Milliseconds between two refreshes: while a run is in progress, and while none is. */
const SHORT_DELAY = 5000;
const LONG_DELAY = 30_000;

const page = document.getElementById("runs");
/** Runs that have been fetched; one is used again until its report or its task instance changes. */
const cache = new Map();
let shownContent = "";

async function refresh() {
  try {
    const entries = await fetchLatest(MAX_RUNS);
    const runs = (await mapConcurrently(entries, fetchRun)).filter(Boolean);
    show(runs);
    return runs.some(({ task }) => !isFinal(task.state)) ? SHORT_DELAY : LONG_DELAY;
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
    const report = await fetchReport(ids);
    const run = report && { ids, entry, task, report };
    cache.set(name, run);
    return run;
  } catch (error) {
    if (error instanceof HttpError && [403, 404].includes(error.status)) {
      return null;
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

function show(runs) {
  const content = JSON.stringify(runs.map(({ ids, task, report }) => [ids, task.state, report]));
  if (content === shownContent) {
    return;
  }
  shownContent = content;
  if (runs.length === 0) {
    page.replaceChildren(
      emptyState("No reports yet", "The runs of UsageplaceEventOperators that you may see will be listed here."),
    );
    return;
  }
  const headings = ["Run", "Updated", "Result", ...STATUSES.map(({ label }) => label)];
  page.replaceChildren(
    make("header", {}, make("h1", {}, "Ropo One"), make("p", { class: "about" }, make("span", {}, "Latest runs, newest first"))),
    make(
      "table",
      { role: "table" },
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...headings.map(headerCell))),
      make("tbody", { role: "rowgroup" }, ...runs.map(rowOf)),
    ),
  );
}

function headerCell(name, index) {
  return make("th", { scope: "col", role: "columnheader", class: index > 2 ? "count" : null }, name);
}

function rowOf({ ids, entry, task, report }) {
  const status = runStatus(report, task.state, task.state !== "running");
  const statusBar = bar();
  const posting = status.tone === "active" && report.state === "posting";
  const sentence = posting ? progressText(report) : status.sentence;
  statusBar.show(report);
  const time = make("time", { datetime: report.updated_at }, formatTime(report.updated_at));
  return make(
    "tr",
    { role: "row" },
    make("td", { role: "cell", class: "name" }, reportLink(ids, entry)),
    make("td", { role: "cell", class: "time" }, time),
    make("td", { role: "cell", class: "result" }, make("div", {}, badge(status), make("span", {}, sentence)), statusBar),
    ...STATUSES.map(({ key, label }) => countCell(key, label, report.counts[key] ?? 0)),
  );
}

/** A link to the run's report: the names of the DAG, the task and the run. */
function reportLink(ids, { dag_display_name: dagName, task_display_name: taskName }) {
  const mapped = ids.mapIndex < 0 ? "" : ` [${ids.mapIndex}]`;
  const task = make("span", { class: "detail" }, `${taskName ?? ids.taskId}${mapped}`);
  const run = make("span", { class: "detail" }, ids.runId);
  return navigateParent(make("a", { href: reportUrl(ids), target: "_top" }, dagName ?? ids.dagId, task, run));
}

function countCell(key, label, number) {
  const zero = number === 0 ? " none" : "";
  return make("td", { role: "cell", class: `count status-${key}${zero}`, "data-name": label }, formatNumber(number));
}

poll(refresh);
