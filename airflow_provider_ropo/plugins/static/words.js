// The text of the pages. Pure functions: a report and a task instance's state go in, text comes out.

/** Every delivery status, in the order of display. `todo` tells a person what to do; it is shown below the bar. */
export const STATUSES = [
  { key: "delivered", label: "Delivered", means: "Ropo One has it", good: true },
  { key: "already_delivered", label: "Already delivered", means: "Ropo One had it before this run", good: true },
  {
    key: "rejected",
    label: "Rejected",
    means: "Ropo One rejected it, and would reject it again",
    todo: "Ropo One rejected it, and would reject it again. Fix the row in the source table.",
  },
  {
    key: "invalid",
    label: "Invalid",
    means: "The row cannot become an event",
    todo: "The row cannot become an event. Fix the row in the source table.",
  },
  {
    key: "changed",
    label: "Changed",
    means: "Ropo One has an earlier version of it",
    todo: "Ropo One has an earlier version of it. If the new content is right, run the task once with redeliver='changed'; otherwise fix the row in the source table.",
  },
  {
    key: "undelivered",
    label: "Undelivered",
    means: "It did not arrive",
    todo: "It did not arrive. The next try, or a later run that reads the row, sends it.",
  },
  {
    key: "unconfirmed",
    label: "Unconfirmed",
    means: "It may have arrived",
    todo: "It was sent, but no answer came: it may have arrived. The next try, or a later run that reads the row, sends it again with the same id, unless the task is set to hold such events.",
  },
  {
    key: "held",
    label: "Held",
    means: "It waits for an earlier event, or for another run",
    todo: "An earlier event of the same usage place has not arrived, or another run is sending this event. The next try, or a later run that reads the row, checks it again.",
  },
  { key: "closed", label: "Closed", means: "A person has closed it: it is not sent" },
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

/** "about 2 min left"; empty if the time is unknown. */
export function timeLeft(seconds) {
  if (seconds === null || seconds === undefined) {
    return "";
  }
  if (seconds < 90) {
    return `about ${formatNumber(Math.max(seconds, 1))} s left`;
  }
  if (seconds < 5400) {
    return `about ${formatNumber(Math.round(seconds / 60))} min left`;
  }
  return `about ${oneDecimal.format(seconds / 3600)} h left`;
}

/** "142 of 400 events, 24.8 a second, about 11 s left". */
export function progressText(report) {
  const done = `${formatNumber(report.done)} of ${quantity(report.total, "event")}`;
  const rate = `${oneDecimal.format(report.per_second)} a second`;
  return [done, rate, timeLeft(report.seconds_left)].filter(Boolean).join(", ");
}

/** The statuses with the labels of this report: in a preview, "undelivered" means "would be posted". */
export function statusesFor({ preview }) {
  const wouldBe = { key: "undelivered", label: "Would be posted", means: "A run would post it" };
  return preview ? STATUSES.map((status) => (status.key === "undelivered" ? wouldBe : status)) : STATUSES;
}

/** The statuses with at least one event, each with its number of events. */
export function statusesWithEvents(counts, report = {}) {
  return statusesFor(report)
    .map((status) => ({ ...status, number: counts[status.key] ?? 0 }))
    .filter(({ number }) => number > 0);
}

/** "6 delivered, 3 already delivered". */
export function countsText(counts) {
  return statusesWithEvents(counts)
    .map(({ number, label }) => `${formatNumber(number)} ${label.toLowerCase()}`)
    .join(", ");
}

/**
 * The status of a run: a label, a tone ("good", "bad", "wait", "active" or "quiet") and a sentence.
 *
 * @param tryEnded whether this try of the task instance has ended, so that its report no longer changes.
 */
export function runStatus(report, state, tryEnded) {
  if (report.state !== "ended") {
    return tryEnded ? interruptedStatus(report, state) : runningStatus(report);
  }
  if (report.preview) {
    return { label: "Preview", tone: state === "failed" ? "bad" : "quiet", sentence: previewSentence(report) };
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

/** Green only if Airflow calls the task a success and every event is at Ropo One. */
function endedStatus({ counts }, state) {
  const missing = counts.events > counts.delivered + counts.already_delivered + (counts.closed ?? 0);
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
