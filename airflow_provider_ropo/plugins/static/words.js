// The text of the pages. Pure functions: a report and a task instance's state go in, text comes out.

/** Every delivery status, in the order of display; `good`: nothing is left to be done. */
export const STATUSES = [
  { key: "delivered", label: "Delivered", means: "Ropo One has it", good: true },
  { key: "already_delivered", label: "Already delivered", means: "Ropo One had it before this run", good: true },
  { key: "rejected", label: "Rejected", means: "Ropo One rejected it, and would reject it again" },
  { key: "invalid", label: "Invalid", means: "The row cannot become an event" },
  { key: "changed", label: "Changed", means: "Ropo One has an earlier version of it" },
  { key: "undelivered", label: "Undelivered", means: "It did not arrive" },
  { key: "unconfirmed", label: "Unconfirmed", means: "It may have arrived" },
  { key: "held", label: "Held", means: "It waits for an earlier event, or for another run" },
  { key: "closed", label: "Closed", means: "A person has closed it: it is not sent", good: true },
];

const wholeNumber = new Intl.NumberFormat();
const oneDecimal = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

export function formatNumber(number) {
  return wholeNumber.format(number);
}

/** "1 event", "1,234 events". */
export function quantity(number, noun) {
  return `${formatNumber(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A date and time, in the time zone that is chosen in Airflow's UI. */
export function formatTime(text) {
  const options = { dateStyle: "medium", timeStyle: "medium" };
  const chosenZone = (localStorage.getItem("timezone") ?? "").replaceAll('"', "");
  try {
    return new Intl.DateTimeFormat(undefined, { ...options, timeZone: chosenZone || undefined }).format(new Date(text));
  } catch {
    return new Intl.DateTimeFormat(undefined, options).format(new Date(text));
  }
}

/** The day in the same zone, as a date field has it: "2026-01-31". */
export function dayOf(text) {
  const parts = { year: "numeric", month: "2-digit", day: "2-digit" };
  const chosenZone = (localStorage.getItem("timezone") ?? "").replaceAll('"', "");
  const inZone = (timeZone) => new Intl.DateTimeFormat("en-CA", { ...parts, timeZone }).format(new Date(text));
  try {
    return inZone(chosenZone || undefined);
  } catch {
    return inZone(undefined);
  }
}

/** "45 s", "12 min", "3 h", "3.5 days". */
export function duration(seconds) {
  if (seconds < 90) {
    return `${formatNumber(Math.max(Math.round(seconds), 1))} s`;
  }
  if (seconds < 5400) {
    return `${formatNumber(Math.round(seconds / 60))} min`;
  }
  if (seconds < 172_800) {
    return `${oneDecimal.format(seconds / 3600)} h`;
  }
  return `${oneDecimal.format(seconds / 86_400)} days`;
}

/** "about 2 min left"; empty if the time is unknown. */
export function timeLeft(seconds) {
  return seconds === null || seconds === undefined ? "" : `about ${duration(seconds)} left`;
}

/** "142 of 400 events, 24.8 a second, about 11 s left". */
export function progressText(report) {
  const done = `${formatNumber(report.done)} of ${quantity(report.total, "event")}`;
  const rate = `${oneDecimal.format(report.per_second)} a second`;
  return [done, rate, timeLeft(report.seconds_left)].filter(Boolean).join(", ");
}

/** How old the oldest event is that is not at Ropo One, and how long it took events to get there. */
export function timeSentences({ state, oldest_open: oldest, longest_lag: lag, updated_at: updated }) {
  const sentences = [];
  // Before the end, it is not known which events stay.
  if (oldest && state === "ended") {
    const age = duration((Date.parse(updated) - Date.parse(oldest)) / 1000);
    sentences.push(`Oldest event not at Ropo One: ${age} old (${formatTime(oldest)})`);
  }
  if (lag !== null && lag !== undefined) {
    sentences.push(`Longest time from an event to its delivery: ${duration(lag)}`);
  }
  return sentences;
}

/** The statuses with the labels of this report: in a preview, "undelivered" means "would be posted". */
export function statusesFor({ preview }) {
  const wouldBe = { key: "undelivered", label: "Would be posted", means: "A run would post it", good: true };
  return preview ? STATUSES.map((status) => (status.key === "undelivered" ? wouldBe : status)) : STATUSES;
}

/** The statuses with at least one event, each with its number of events. */
export function statusesWithEvents(counts, report = {}) {
  return statusesFor(report)
    .map((status) => ({ ...status, number: counts[status.key] ?? 0 }))
    .filter(({ number }) => number > 0);
}

/** "6 delivered, 3 already delivered". */
export function countsText(report) {
  return statusesWithEvents(report.counts, report)
    .map(({ number, label }) => `${formatNumber(number)} ${label.toLowerCase()}`)
    .join(", ");
}

/**
 * The status of a run: a label, a tone ("good", "bad", "wait", "active", "preview" or "quiet") and a sentence.
 *
 * @param tryEnded whether this try of the task instance has ended, so that its report no longer changes.
 */
export function runStatus(report, state, tryEnded) {
  if (report.state !== "ended") {
    return tryEnded ? interruptedStatus(report, state) : runningStatus(report);
  }
  if (report.preview && !report.stopped) {
    return { label: "Preview", tone: state === "failed" ? "bad" : "preview", sentence: previewSentence(report) };
  }
  const sentence = resultSentence(report);
  if (report.stopped) {
    return { label: "Stopped", tone: state === "up_for_retry" ? "wait" : "bad", sentence };
  }
  if (state === "up_for_retry") {
    return { label: "Waiting for retry", tone: "wait", sentence };
  }
  if (state === "failed") {
    return { label: "Failed", tone: "bad", sentence };
  }
  if (state === "skipped") {
    return { label: "Skipped", tone: "quiet", sentence };
  }
  return { ...endedStatus(report, state), sentence };
}

/** How many events of an ended run are neither at Ropo One nor closed. */
export function missingEvents({ counts }) {
  return STATUSES.filter(({ good }) => !good).reduce((sum, { key }) => sum + (counts[key] ?? 0), 0);
}

/** Where a run's events go: "rc.ropo24.fi 1000011", or the connection's own name for it, with the server. */
export function destinationText({ destination, server }) {
  const short = (text) => text.replace(/^https:\/\//, "");
  if (!destination || !server || destination.includes(server)) {
    return short(destination || server || "");
  }
  return `${destination} (${short(server)})`;
}

/** Green only if Airflow calls the task a success and every event is at Ropo One. */
function endedStatus(report, state) {
  const { counts } = report;
  const missing = missingEvents(report) > 0;
  if (state !== "success") {
    return { label: "Ended", tone: missing ? "wait" : "quiet" };
  }
  return { label: "Done", tone: missing ? "wait" : counts.events ? "good" : "quiet" };
}

function runningStatus(report) {
  if (report.state === "reading") {
    return { label: "Reading", tone: "active", sentence: "The rows are being read and checked." };
  }
  return { label: "Posting", tone: "active", sentence: `Posting ${quantity(report.total, "event")} to Ropo One.` };
}

function interruptedStatus(report, state) {
  const tone = state === "up_for_retry" ? "wait" : "bad";
  const when =
    report.state === "posting"
      ? `after ${formatNumber(report.done)} of ${quantity(report.total, "event")}`
      : "before anything was posted";
  return { label: "Interrupted", tone, sentence: `The task stopped without a final report ${when}.` };
}

function previewSentence({ counts }) {
  const parts = [`${quantity(counts.undelivered, "event")} would be posted`];
  if (counts.already_delivered) {
    parts.push(`${formatNumber(counts.already_delivered)} already known`);
  }
  for (const { number, label, key } of statusesWithEvents(counts)) {
    if (!["undelivered", "already_delivered"].includes(key)) {
      parts.push(`${formatNumber(number)} ${label.toLowerCase()}`);
    }
  }
  return counts.events ? `Nothing was posted: ${parts.join(", ")}.` : "No rows to report.";
}

/** "9 events reported: 6 new, 3 already known." */
function resultSentence({ counts, stopped }) {
  const { events, delivered: added, already_delivered: known } = counts;
  const arrived = added + known;
  const parts = [added && `${formatNumber(added)} new`, known && `${formatNumber(known)} already known`]
    .filter(Boolean)
    .join(", ");
  if (events === 0) {
    return stopped ? "Nothing was posted." : "No rows to report.";
  }
  if (arrived < events) {
    const verb = events === 1 ? "is" : "are";
    return `${formatNumber(arrived)} of ${quantity(events, "event")} ${verb} at Ropo One${parts && `: ${parts}`}.`;
  }
  if (added === 0) {
    return `Nothing new: ${quantity(known, "event")} already known.`;
  }
  return `${quantity(arrived, "event")} reported: ${parts}.`;
}
