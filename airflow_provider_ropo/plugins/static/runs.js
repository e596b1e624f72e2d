// The latest runs of every task that reports to Ropo One, as far as the viewer may see them.

import { askLatest, askReport, askTask, isFinal, keepLooking, leadsTheWholePage, Refused, reportPage } from "./airflow.js";
import { badge, bar, emptiness, make } from "./elements.js";
import { count, moment, pace, standing, STATUSES } from "./words.js";

const SHOWN = 50;
/** Questions side by side, so that a page of runs is no burden on Airflow. */
const SIDE_BY_SIDE = 6;
/** Milliseconds between two looks: while something runs, and while nothing does. */
const SOON = 5000;
const LATER = 30_000;

const page = document.getElementById("runs");
/** What is known of a run, until its report or its task instance changes. */
const known = new Map();
let shown = "";

async function look() {
  try {
    const entries = await askLatest(SHOWN);
    const runs = (await sideBySide(entries, askRun)).filter(Boolean);
    show(runs);
    return runs.some(({ task }) => !isFinal(task.state)) ? SOON : LATER;
  } catch (error) {
    return showTrouble(error);
  }
}

/** Ask about each thing, a few at a time; the answers are in the things' order. */
async function sideBySide(things, about) {
  const answers = [];
  let next = 0;
  const worker = async () => {
    while (next < things.length) {
      const index = next++;
      answers[index] = await about(things[index]);
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
  return answers;
}

/** What one entry stands for; null if it is gone, or not for this viewer. */
async function askRun(entry) {
  const ids = { dagId: entry.dag_id, runId: entry.run_id, taskId: entry.task_id, mapIndex: entry.map_index };
  const name = JSON.stringify(ids);
  const before = known.get(name);
  if (before && before.entry.timestamp === entry.timestamp && isFinal(before.task.state)) {
    return before;
  }
  try {
    const task = await askTask(ids);
    const report = await askReport(ids);
    const run = report && { ids, entry, task, report };
    known.set(name, run);
    return run;
  } catch (error) {
    if (error instanceof Refused && [403, 404].includes(error.status)) {
      return null;
    }
    throw error;
  }
}

function showTrouble(error) {
  if (!(error instanceof Refused) || ![401, 403].includes(error.status)) {
    if (!shown) {
      page.replaceChildren(emptiness("Airflow does not answer", "This page asks again."));
    }
    return LATER;
  }
  shown = String(error.status);
  if (error.status === 401) {
    page.replaceChildren(emptiness("You are signed out", "Load Airflow's page again to sign in."));
    return null;
  }
  page.replaceChildren(emptiness("Not for you to see", "You may not read the XComs of any DAG, where reports are."));
  return null;
}

function show(runs) {
  const now = JSON.stringify(runs.map(({ ids, task, report }) => [ids, task.state, report]));
  if (now === shown) {
    return;
  }
  shown = now;
  if (runs.length === 0) {
    page.replaceChildren(
      emptiness("Nothing reported yet", "Each run of a UsageplaceEventOperator that you may see is listed here."),
    );
    return;
  }
  const heads = ["Run", "Reported", "What became of it", ...STATUSES.map(({ label }) => label)];
  page.replaceChildren(
    make("header", {}, make("h1", {}, "Ropo One"), make("p", { class: "about" }, make("span", {}, "Latest runs, newest first"))),
    make(
      "table",
      { role: "table" },
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads.map(headCell))),
      make("tbody", { role: "rowgroup" }, ...runs.map(rowOf)),
    ),
  );
}

function headCell(name, index) {
  return make("th", { scope: "col", role: "columnheader", class: index > 2 ? "count" : null }, name);
}

function rowOf({ ids, entry, task, report }) {
  const how = standing(report, task.state, task.state !== "running");
  const theBar = bar();
  const sentence = how.look === "active" && report.state === "posting" ? pace(report) : how.sentence;
  theBar.show(report);
  const time = make("time", { datetime: report.updated_at }, moment(report.updated_at));
  return make(
    "tr",
    { role: "row" },
    make("td", { role: "cell", class: "name" }, linkTo(ids, entry)),
    make("td", { role: "cell", class: "time" }, time),
    make("td", { role: "cell", class: "end" }, make("div", {}, badge(how), make("span", {}, sentence)), theBar),
    ...STATUSES.map(({ key, label }) => countCell(key, label, report.counts[key] ?? 0)),
  );
}

/** One link for all of the name: it leads to this run's report. */
function linkTo(ids, { dag_display_name: dagName, task_display_name: taskName }) {
  const mapped = ids.mapIndex < 0 ? "" : ` [${ids.mapIndex}]`;
  const task = make("span", { class: "detail" }, `${taskName ?? ids.taskId}${mapped}`);
  const run = make("span", { class: "detail" }, ids.runId);
  return leadsTheWholePage(make("a", { href: reportPage(ids), target: "_top" }, dagName ?? ids.dagId, task, run));
}

function countCell(key, label, number) {
  const zero = number === 0 ? " none" : "";
  return make("td", { role: "cell", class: `count status-${key}${zero}`, "data-name": label }, count(number));
}

keepLooking(look);
