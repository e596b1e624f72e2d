// What happens next to the events that are not at Ropo One, and what a person can do. Pure functions.

import { formatTime, statusesWithEvents } from "./words.js";

/** Statuses for which a person has to change something first. */
const PERMANENT = new Set(["rejected", "invalid", "changed"]);
/** Seconds without a new report after which a running task's figures are called old. */
export const STALE_AFTER = 30;
/** The longest delay that the operator takes from Ropo One, in seconds. */
const MAX_RETRY_AFTER = 86_400;

/**
 * The sentences about what happens next, for a try of the task instance that has ended; empty if nothing is open.
 *
 * @param task the task instance, as Airflow's API has it.
 */
export function nextSteps(report, task) {
  const isInterrupted = report.state !== "ended";
  const open = statusesWithEvents(report.counts).filter(({ good }) => !good);
  if (report.preview) {
    return [];
  }
  if (!isInterrupted && !report.stopped && open.length === 0) {
    return task.state === "failed" ? ["The task failed for another reason, or a person marked it as failed."] : [];
  }
  const needs = isInterrupted || report.stopped ? [] : needsOf(report, open);
  const sentences = [...causeSentences(report), ...fateSentences(report, task, needs)];
  return [...sentences, ...memorySentences(report, task)];
}

/** What a person has to do before anything can be sent; empty if something can be sent without it. */
function needsOf(report, open) {
  const isHeld = (key) => key === "unconfirmed" && holds(report);
  if (!open.every(({ key }) => PERMANENT.has(key) || isHeld(key))) {
    return [];
  }
  const needs = [
    open.some(({ key }) => PERMANENT.has(key)) && "the rows are fixed",
    open.some(({ key }) => isHeld(key)) && "the unconfirmed events are settled",
  ];
  return needs.filter(Boolean);
}

function holds({ ledger, on_unconfirmed: onUnconfirmed }) {
  return Boolean(ledger) && onUnconfirmed === "hold";
}

/** What to correct first. */
function causeSentences({ stopped_by: cause, ropo_conn_id: connection }) {
  const named = connection ? `the connection "${connection}"` : "the connection";
  const sentences = {
    sign_in: `Ropo One refused the sign-in. Correct the customer number and the API code in ${named}.`,
    configuration: "Correct the setting that is named above.",
    ledger: "The ledger's database has to work again before anything is posted.",
    refused: "The run was refused before its first post; the message above tells what to correct.",
    superseded: "A later try of this task instance has taken over.",
  };
  return sentences[cause] ? [sentences[cause]] : [];
}

/** Whether Airflow runs the task instance again by itself, and when. */
function fateSentences(report, task, needs) {
  const state = task.state;
  if (state === "up_for_retry") {
    return [retrySentence(report, task)];
  }
  if (state === null || ["scheduled", "queued", "restarting", "up_for_reschedule", "deferred"].includes(state)) {
    return ["Airflow is about to run this task instance again."];
  }
  if (state === "running") {
    return [];
  }
  const ended = state === "failed" ? "" : "For Airflow the task has ended without a failure. ";
  const noMoreTries = `${ended}Airflow does not try this task instance again.`;
  if (needs.length) {
    const then = "clear this task instance, or let a later run read the same rows.";
    return [noMoreTries, `When ${needs.join(" and ")}, ${then}`];
  }
  return [
    noMoreTries,
    "Nothing sends the events that did not arrive until this task instance is cleared, or a later run reads the same " +
      "rows.",
  ];
}

/** "Try 2 of 3 is due at …". */
function retrySentence(report, task) {
  const name = `Try ${task.try_number + 1} of ${task.max_tries + 1}`;
  const asked = report.uses_retry_after && report.retry_after ? Math.min(report.retry_after, MAX_RETRY_AFTER) : null;
  const delay = asked ?? report.retry_delay;
  if (delay === null || delay === undefined || !task.end_date) {
    return `${name} follows, after a delay that Airflow computes.`;
  }
  const due = formatTime(new Date(Date.parse(task.end_date) + delay * 1000).toISOString());
  return asked === null ? `${name} is due at ${due}.` : `${name} is due at ${due}, as Ropo One asked.`;
}

/** What is posted again then. */
function memorySentences({ ledger, redeliver, counts, state }, task) {
  const again = task.state === "up_for_retry" ? "the next try" : "a cleared task instance";
  if (ledger && redeliver === "always") {
    return ["With redeliver='always', also what is known to be delivered is posted again."];
  }
  if (ledger) {
    return ["With the ledger, nothing that is known to be delivered is posted again."];
  }
  if (ledger === null && (counts.delivered || counts.unconfirmed || state === "posting")) {
    return [`There is no ledger: ${again} sends every row that it reads, also those that have arrived.`];
  }
  return [];
}

/** What a status means for its events, and what a person has to do; empty for those that need nothing. */
export function statusStep(key, report) {
  const steps = {
    rejected: "Ropo One rejected it, and would reject it again. Fix the row in the source table.",
    invalid: "The row cannot become an event. Fix the row in the source table.",
    changed:
      "Ropo One has an earlier version of it. If the new content is right, run the task once with " +
      "redeliver='changed'; otherwise fix the row in the source table.",
    undelivered: "It did not arrive.",
    unconfirmed:
      "It was sent, but no answer came: it may have arrived. A later try or run that reads the row sends it again, " +
      "with the same id.",
    held: "An earlier event of the same usage place has not arrived, or another run is sending this event.",
  };
  if (key === "unconfirmed" && holds(report)) {
    return (
      "It was sent, but no answer came: it may have arrived. This task holds such events (on_unconfirmed='hold'): " +
      "no run sends it until a person settles it in the ledger."
    );
  }
  return steps[key] ?? "";
}

/** The note about a run that ended without a last report, or whose last report is old; null if there is none. */
export function interruption(report, task, age) {
  if (report.state === "ended") {
    return null;
  }
  const last = formatTime(report.updated_at);
  if (task.state !== "running") {
    return (
      `The task was killed, or its worker was lost. These figures are from ${last}. ` +
      "More events may have arrived since then, among them those that were being sent."
    );
  }
  if (age === null || age <= STALE_AFTER) {
    return null;
  }
  const old = `These figures are from ${last}: there is no newer report.`;
  const lost = "If the worker was lost, Airflow notices it after some minutes.";
  if (report.state === "reading") {
    return `${old} The warehouse may still be working on the query: nothing is posted before all rows are read. ${lost}`;
  }
  return `${old} ${lost} Until then, more events may have arrived.`;
}
