// What a report says, in words. Pure: a report and a task instance's state go in, text comes out.

/** Every delivery status, in the order in which they are shown. `todo` is what a person reads below the bar. */
export const STATUSES = [
  { key: "delivered", label: "Delivered", means: "Ropo One has it", good: true },
  { key: "already_delivered", label: "Already delivered", means: "Ropo One had it before this run", good: true },
  {
    key: "rejected",
    label: "Rejected",
    means: "Ropo One said no, and would again",
    todo: "Ropo One said no, and would again: somebody has to mend the row.",
  },
  {
    key: "invalid",
    label: "Invalid",
    means: "The row cannot become an event",
    todo: "The row cannot become an event: somebody has to mend it.",
  },
  {
    key: "undelivered",
    label: "Undelivered",
    means: "It did not arrive",
    todo: "It did not arrive. The next try, or the next run, takes it.",
  },
  {
    key: "unconfirmed",
    label: "Unconfirmed",
    means: "It may have arrived",
    todo: "It was sent and never answered: it may have arrived. The next try, or the next run, sends it again with the same id, unless the task holds such events.",
  },
  {
    key: "held",
    label: "Held",
    means: "Waits for another event",
    todo: "An earlier event of the same usage place has not arrived, or another run is sending it. The next try, or the next run, takes it.",
  },
];

const whole = new Intl.NumberFormat();
const tenths = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

export function count(number) {
  return whole.format(number);
}

/** "1 event", "1,234 events". */
export function some(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A moment, in the time zone that is chosen in Airflow's UI. */
export function moment(text) {
  const options = { dateStyle: "medium", timeStyle: "medium" };
  const kept = (localStorage.getItem("timezone") ?? "").replaceAll('"', "");
  try {
    return new Intl.DateTimeFormat(undefined, { ...options, timeZone: kept || undefined }).format(new Date(text));
  } catch {
    return new Intl.DateTimeFormat(undefined, options).format(new Date(text));
  }
}

/** "about 2 min left"; empty where nobody knows. */
export function left(seconds) {
  if (seconds === null || seconds === undefined) {
    return "";
  }
  if (seconds < 90) {
    return `about ${count(Math.max(seconds, 1))} s left`;
  }
  return seconds < 5400 ? `about ${count(Math.round(seconds / 60))} min left` : `about ${tenths.format(seconds / 3600)} h left`;
}

/** "142 of 400 events, 24.8 a second, about 11 s left". */
export function pace(report) {
  const parts = [`${count(report.done)} of ${some(report.total, "event")}`, `${tenths.format(report.per_second)} a second`];
  return [...parts, left(report.seconds_left)].filter(Boolean).join(", ");
}

/** The statuses in the words of this report: a preview leaves alone what it would post. */
export function statusesFor({ preview }) {
  const wouldBe = { key: "undelivered", label: "Would be posted", means: "A run would post it" };
  return preview ? STATUSES.map((status) => (status.key === "undelivered" ? wouldBe : status)) : STATUSES;
}

/** The statuses that occur, with how many there are of each. */
export function present(counts, report = {}) {
  return statusesFor(report).map((status) => ({ ...status, number: counts[status.key] ?? 0 })).filter(({ number }) => number > 0);
}

/** "6 delivered, 3 already delivered". */
export function listed(counts) {
  return present(counts).map(({ number, label }) => `${count(number)} ${label.toLowerCase()}`).join(", ");
}

/**
 * How the run stands: a word for it, how it looks ("good", "bad", "wait", "active" or "quiet"), and a sentence.
 *
 * @param final the task instance is not going to say more in this try.
 */
export function standing(report, state, final) {
  if (report.state !== "ended") {
    return final ? cutShort(report, state) : underWay(report);
  }
  if (report.preview) {
    return { word: "Preview", look: state === "failed" ? "bad" : "quiet", sentence: previewed(report) };
  }
  if (report.stopped) {
    return { word: "Stopped", look: state === "up_for_retry" ? "wait" : "bad", sentence: arrived(report) };
  }
  if (state === "up_for_retry") {
    return { word: "Will be tried again", look: "wait", sentence: arrived(report) };
  }
  if (state === "failed") {
    return { word: "Failed", look: "bad", sentence: arrived(report) };
  }
  if (state === "skipped") {
    return { word: "Skipped", look: "quiet", sentence: arrived(report) };
  }
  return { ...ended(report, state), sentence: arrived(report) };
}

/** Green is only what Airflow calls a success, and where everything is at Ropo One. */
function ended({ counts }, state) {
  const missing = counts.events > counts.delivered + counts.already_delivered;
  if (state !== "success") {
    return { word: "Ended", look: missing ? "wait" : "quiet" };
  }
  return { word: "Done", look: missing ? "wait" : counts.events ? "good" : "quiet" };
}

function underWay(report) {
  if (report.state === "reading") {
    return { word: "Reading", look: "active", sentence: "The rows are being read and checked." };
  }
  return { word: "Posting", look: "active", sentence: `${some(report.total, "event")} on the way to Ropo One.` };
}

function cutShort(report, state) {
  const look = state === "up_for_retry" ? "wait" : "bad";
  const posted = report.state === "posting" ? ` after ${count(report.done)} of ${some(report.total, "event")}` : "";
  const begun = posted ? "" : " before anything was posted";
  return { word: "Cut short", look, sentence: `The task ended without a last word${posted}${begun}.` };
}

function previewed({ counts }) {
  const parts = [`${some(counts.undelivered, "event")} would be posted`];
  if (counts.already_delivered) {
    parts.push(`${count(counts.already_delivered)} already known`);
  }
  for (const { number, label, key } of present(counts)) {
    if (!["undelivered", "already_delivered"].includes(key)) {
      parts.push(`${count(number)} ${label.toLowerCase()}`);
    }
  }
  return counts.events ? `Nothing was posted: ${parts.join(", ")}.` : "No rows to report.";
}

/** "9 events reported: 6 new, 3 already known." */
function arrived({ counts, stopped }) {
  const { events, delivered: fresh, already_delivered: known } = counts;
  const there = fresh + known;
  const parts = [fresh && `${count(fresh)} new`, known && `${count(known)} already known`].filter(Boolean).join(", ");
  if (events === 0) {
    return stopped ? "Nothing was posted." : "No rows to report.";
  }
  if (there < events) {
    return `${count(there)} of ${some(events, "event")} ${events === 1 ? "is" : "are"} at Ropo One${parts && `: ${parts}`}.`;
  }
  return fresh === 0 ? `Nothing new: ${some(known, "event")} already known.` : `${some(there, "event")} reported: ${parts}.`;
}
