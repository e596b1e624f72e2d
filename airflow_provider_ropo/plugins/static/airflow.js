// Airflow, as these pages see it: its REST API with the viewer's session, and the UI around them.

/** Where Airflow is served; these files are one folder below. */
const BASE = new URL("..", import.meta.url);

export const REPORT_KEY = "ropo_report";

/** States in which a task instance stays as it is until somebody clears it. */
const FINAL = new Set(["success", "failed", "skipped", "upstream_failed", "removed"]);

/** An answer that is not what was asked for. */
export class Refused extends Error {
  constructor(status) {
    super(`Airflow answered ${status}`);
    this.status = status;
  }
}

/** Put ids into a path, each escaped: path`dags/${dagId}`. */
export function path(parts, ...ids) {
  return String.raw({ raw: parts }, ...ids.map(encodeURIComponent));
}

/** Ask the REST API as the viewer; throws what is Refused, and fetch's own TypeError where nobody answers. */
async function ask(where) {
  const url = new URL(`api/v2/${where}`, BASE);
  const options = { credentials: "same-origin", cache: "no-store", headers: { Accept: "application/json" } };
  let answer = await fetch(url, options);
  // Since Airflow 3.2 a cookie is the session; before, the UI keeps a token.
  const token = localStorage.getItem("token");
  if (answer.status === 401 && token) {
    answer = await fetch(url, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } });
  }
  if (!answer.ok) {
    throw new Refused(answer.status);
  }
  return answer.json();
}

function taskPath({ dagId, runId, taskId }) {
  return path`dags/${dagId}/dagRuns/${runId}/taskInstances/${taskId}`;
}

/** The task instance; its `state` is null before it is scheduled. */
export function askTask(ids) {
  return ask(ids.mapIndex < 0 ? taskPath(ids) : `${taskPath(ids)}/${ids.mapIndex}`);
}

/** The report that the task instance has left, or null. */
export async function askReport(ids) {
  try {
    const entry = await ask(`${taskPath(ids)}/xcomEntries/${REPORT_KEY}?map_index=${ids.mapIndex}`);
    return typeof entry.value === "string" ? JSON.parse(entry.value) : entry.value;
  } catch (error) {
    if (error instanceof Refused && error.status === 404) {
      return null;
    }
    throw error;
  }
}

const PAGE = 100;
const PAGES = 10;

/** The latest reports of all tasks that the viewer may see, as XCom entries without their values, newest first. */
export async function askLatest(count) {
  const everywhere = `dags/~/dagRuns/~/taskInstances/~/xcomEntries?xcom_key=${REPORT_KEY}&order_by=-timestamp`;
  const newestFirst = (one, other) => Date.parse(other.timestamp) - Date.parse(one.timestamp);
  let { xcom_entries: entries, total_entries: total } = await ask(`${everywhere}&limit=${count}`);
  const sorted = entries.every((entry, index) => index === 0 || newestFirst(entries[index - 1], entry) <= 0);
  if (!sorted) {
    // Airflow 3.1 sorts by name, whatever it is asked: the newest may be anywhere.
    entries = [];
    for (let page = 0; page < PAGES && page * PAGE < total; page += 1) {
      entries.push(...(await ask(`${everywhere}&limit=${PAGE}&offset=${page * PAGE}`)).xcom_entries);
    }
  }
  return entries.sort(newestFirst).slice(0, count);
}

export function isFinal(state) {
  return FINAL.has(state);
}

/** The task instance that a page's own address names. */
export function namedIn(search) {
  const given = new Map();
  for (const pair of search.replace(/^\?/, "").split("&")) {
    const [name, ...value] = pair.split("=");
    given.set(name, unescaped(value.join("=")));
  }
  // An address is not a form: "+" is a plus. What Airflow had no value for is still in its braces.
  const mapIndex = Number.parseInt(given.get("map_index") ?? "", 10);
  return {
    dagId: given.get("dag_id") ?? "",
    runId: given.get("run_id") ?? "",
    taskId: given.get("task_id") ?? "",
    mapIndex: Number.isNaN(mapIndex) ? -1 : mapIndex,
  };
}

function unescaped(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The page of a task instance's report, in Airflow's UI. */
export function reportPage({ dagId, runId, taskId, mapIndex }) {
  const mapped = mapIndex < 0 ? "" : `/mapped/${mapIndex}`;
  const page = `${path`dags/${dagId}/runs/${runId}/tasks/${taskId}`}${mapped}/plugin/ropo-report`;
  // As Airflow's own pages write it: another spelling would be the same page, but not the same tab to them.
  return new URL(page.replaceAll("%3A", ":").replaceAll("%2B", "+"), BASE).href;
}

/** Let a click on a link lead Airflow's own page there, which a page in a frame may not do by itself. */
export function leadsTheWholePage(link) {
  const lead = (event) => {
    if (window.parent === window || event.button > 1) {
      return;
    }
    event.preventDefault();
    const anchor = window.parent.document.createElement("a");
    anchor.href = link.href;
    anchor.rel = "noopener";
    anchor.target = event.button === 1 || event.ctrlKey || event.metaKey ? "_blank" : "_self";
    anchor.click();
  };
  link.addEventListener("click", lead);
  link.addEventListener("auxclick", lead);
  return link;
}

/**
 * Look now, and again for as long as there is something to wait for and somebody looks.
 *
 * @param look returns the milliseconds until the next look, or null.
 */
export function keepLooking(look) {
  let timer = null;
  let looking = false;

  async function once() {
    clearTimeout(timer);
    if (looking || document.hidden) {
      return;
    }
    looking = true;
    const wait = await look().finally(() => {
      looking = false;
    });
    if (wait !== null) {
      timer = setTimeout(once, wait);
    }
  }

  document.addEventListener("visibilitychange", once);
  window.addEventListener("focus", once);
  return once();
}
