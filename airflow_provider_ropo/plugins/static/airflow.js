// Access to Airflow: its REST API with the viewer's session, and the UI around these pages.

/** The address at which Airflow is served; these files are one folder below. */
const BASE = new URL("..", import.meta.url);

export const REPORT_KEY = "ropo_report";

/** States that a task instance keeps until it is cleared. */
const FINAL = new Set(["success", "failed", "skipped", "upstream_failed", "removed"]);

/** A response of Airflow with an HTTP status other than success. */
export class HttpError extends Error {
  constructor(status) {
    super(`Airflow answered ${status}`);
    this.status = status;
  }
}

/** Put ids into a path, each escaped: path`dags/${dagId}`. */
export function path(parts, ...ids) {
  return String.raw({ raw: parts }, ...ids.map(encodeURIComponent));
}

/** Get JSON from the REST API as the viewer; throws an HttpError, or fetch's own TypeError if there is no response. */
async function fetchJson(apiPath) {
  const url = new URL(`api/v2/${apiPath}`, BASE);
  const options = { credentials: "same-origin", cache: "no-store", headers: { Accept: "application/json" } };
  let response = await fetch(url, options);
  // Since Airflow 3.2 a cookie is the session; before, the UI keeps a token.
  const token = localStorage.getItem("token");
  if (response.status === 401 && token) {
    response = await fetch(url, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } });
  }
  if (!response.ok) {
    throw new HttpError(response.status);
  }
  return response.json();
}

function taskPath({ dagId, runId, taskId }) {
  return path`dags/${dagId}/dagRuns/${runId}/taskInstances/${taskId}`;
}

/** Fetch the task instance; its `state` is null before it is scheduled. */
export function fetchTask(ids) {
  return fetchJson(ids.mapIndex < 0 ? taskPath(ids) : `${taskPath(ids)}/${ids.mapIndex}`);
}

/** Fetch the report that the task instance has published; null if there is none. */
export async function fetchReport(ids) {
  try {
    const entry = await fetchJson(`${taskPath(ids)}/xcomEntries/${REPORT_KEY}?map_index=${ids.mapIndex}`);
    return typeof entry.value === "string" ? JSON.parse(entry.value) : entry.value;
  } catch (error) {
    if (error instanceof HttpError && error.status === 404) {
      return null;
    }
    throw error;
  }
}

const PAGE_SIZE = 100;
const MAX_PAGES = 10;

/** Fetch the latest reports that the viewer may see, of all tasks: XCom entries without values, newest first. */
export async function fetchLatest(count) {
  const allReports = `dags/~/dagRuns/~/taskInstances/~/xcomEntries?xcom_key=${REPORT_KEY}&order_by=-timestamp`;
  const newestFirst = (one, other) => Date.parse(other.timestamp) - Date.parse(one.timestamp);
  let { xcom_entries: entries, total_entries: total } = await fetchJson(`${allReports}&limit=${count}`);
  const sorted = entries.every((entry, index) => index === 0 || newestFirst(entries[index - 1], entry) <= 0);
  if (!sorted) {
    // Airflow 3.1 always sorts by name, so the newest may be on any page.
    entries = [];
    for (let page = 0; page < MAX_PAGES && page * PAGE_SIZE < total; page += 1) {
      entries.push(...(await fetchJson(`${allReports}&limit=${PAGE_SIZE}&offset=${page * PAGE_SIZE}`)).xcom_entries);
    }
  }
  return entries.sort(newestFirst).slice(0, count);
}

export function isFinal(state) {
  return FINAL.has(state);
}

/** The ids of the task instance in the query part of a page's address. */
export function idsFromQuery(search) {
  const values = new Map();
  for (const pair of search.replace(/^\?/, "").split("&")) {
    const [name, ...value] = pair.split("=");
    values.set(name, decoded(value.join("=")));
  }
  // Not decoded as a form, because "+" is a plus here. A placeholder for which Airflow has no value is still in braces.
  const mapIndex = Number.parseInt(values.get("map_index") ?? "", 10);
  return {
    dagId: values.get("dag_id") ?? "",
    runId: values.get("run_id") ?? "",
    taskId: values.get("task_id") ?? "",
    mapIndex: Number.isNaN(mapIndex) ? -1 : mapIndex,
  };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a task instance's report in Airflow's UI. */
export function reportUrl({ dagId, runId, taskId, mapIndex }) {
  const mapped = mapIndex < 0 ? "" : `/mapped/${mapIndex}`;
  const page = `${path`dags/${dagId}/runs/${runId}/tasks/${taskId}`}${mapped}/plugin/ropo-report`;
  // Escaped as Airflow's own pages do it: with another spelling, they would not mark this tab as the current one.
  return new URL(page.replaceAll("%3A", ":").replaceAll("%2B", "+"), BASE).href;
}

/** Make a link navigate Airflow's own page, which a page in a frame may not do by itself. */
export function navigateParent(link) {
  const navigate = (event) => {
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
  link.addEventListener("click", navigate);
  link.addEventListener("auxclick", navigate);
  return link;
}

/**
 * Refresh now, and again while a change is expected and the page is visible.
 *
 * @param refresh returns the milliseconds until the next refresh, or null for none.
 */
export function poll(refresh) {
  let timer = null;
  let refreshing = false;

  async function refreshOnce() {
    clearTimeout(timer);
    if (refreshing || document.hidden) {
      return;
    }
    refreshing = true;
    const delay = await refresh().finally(() => {
      refreshing = false;
    });
    if (delay !== null) {
      timer = setTimeout(refreshOnce, delay);
    }
  }

  document.addEventListener("visibilitychange", refreshOnce);
  window.addEventListener("focus", refreshOnce);
  return refreshOnce();
}
