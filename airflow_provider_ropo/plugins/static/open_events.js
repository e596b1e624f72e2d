// How many events of a run are still open now, as far as the reports of later runs tell. Pure functions.

import { formatNumber, missingEvents } from "./words.js";

/**
 * What is known of a run's open events: `{ text, means, isOpen }`.
 *
 * A report names the first hundred events that failed, but none that arrived. So a later report can show that an event
 * is still open; that it is no longer open, no report can show.
 *
 * @param run a run with its `ids`, its `report` and its `task`.
 * @param runs all runs that are known, of any task.
 */
export function openEvents(run, runs) {
  const { report, task } = run;
  if (report === null) {
    return { text: "?", means: "The report cannot be read here.", isOpen: true };
  }
  if (report.preview) {
    return { text: "–", means: "A preview posts nothing.", isOpen: false };
  }
  if (report.state !== "ended") {
    const means =
      task.state === "running" ? "The run is in progress." : "The run was interrupted: more may have arrived.";
    return { text: task.state === "running" ? "–" : "?", means, isOpen: task.state !== "running" };
  }
  const missing = missingEvents(report);
  if (missing === 0) {
    return report.stopped
      ? { text: "?", means: "The run ended before it had read its rows.", isOpen: true }
      : { text: "0", means: "Every event is at Ropo One or closed.", isOpen: false };
  }
  return withLaterRuns(run, runs, missing);
}

function withLaterRuns(run, runs, missing) {
  const later = runs.filter((other) => isLater(other, run));
  const text = formatNumber(missing);
  const newest = later.reduce((one, other) => (one?.report.updated_at > other.report.updated_at ? one : other), null);
  const named = newest === null ? 0 : countNamed(run.report, newest.report);
  if (named >= missing) {
    return { text, means: `The run ${newest.ids.runId} could not send them either.`, isOpen: true };
  }
  const helpful = later.find(({ report }) => arrived(report) > 0);
  if (!helpful) {
    return { text, means: "No later run of this task has reported an event as arrived.", isOpen: true };
  }
  const range = named === 0 ? `${text} or fewer` : `${formatNumber(named)} to ${text}`;
  const name = helpful.ids.runId;
  const means = `The run ${name} has ended since. It may have sent them: a report does not name what arrived.`;
  return { text: range, means, isOpen: true };
}

/** How many of the events that failed in one run failed in another, too. */
function countNamed({ failures }, other) {
  const failed = new Set(other.failures.map(({ id }) => id));
  return failures.filter(({ id }) => id && failed.has(id)).length;
}

function arrived({ counts }) {
  return counts.delivered + counts.already_delivered + (counts.closed ?? 0);
}

/** Whether another run of the same task, to the same destination, ended after this one and posted. */
function isLater(other, { ids, report }) {
  return (
    other.report?.state === "ended" &&
    !other.report.preview &&
    other.ids.dagId === ids.dagId &&
    other.ids.taskId === ids.taskId &&
    other.ids.mapIndex === ids.mapIndex &&
    other.ids.runId !== ids.runId &&
    other.report.destination === report.destination &&
    other.report.updated_at > report.updated_at
  );
}
