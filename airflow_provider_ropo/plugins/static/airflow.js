// Access to Airflow: its REST API with the viewer's session, and the UI around these pages.

/** The address at which Airflow is served; these files are one folder below. */
const BASE = new URL("..", import.meta.url);

export const REPORT_KEY = "ropo_report";
export const PROGRESS_KEY = "ropo_progress";
/** The tag of a DAG that settles events of a ledger. */
export const SETTLE_TAG = "ropo-settle";

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

/** Send a request to the REST API as the viewer; throws an HttpError, or fetch's own TypeError without a response. */
async function request(apiPath, body) {
  const url = new URL(`api/v2/${apiPath}`, BASE);
  const headers = { Accept: "application/json", ...(body && { "Content-Type": "application/json" }) };
  const options = { credentials: "same-origin", cache: "no-store", headers };
  if (body) {
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let response = await fetch(url, options);
  // Since Airflow 3.2 a cookie is the session; before, the UI keeps a token.
  const token = localStorage.getItem("token");
  if (response.status === 401 && token) {
    response = await fetch(url, { ...options, headers: { ...headers, Authorization: `Bearer ${token}` } });
  }
  if (!response.ok) {
    throw new HttpError(response.status);
  }
  return response;
}

async function fetchJson(apiPath) {
  return (await request(apiPath)).json();
}

/** Get JSON, or null if Airflow has nothing at this path. */
async function fetchIfFound(apiPath) {
  try {
    return await fetchJson(apiPath);
  } catch (error) {
    if (error instanceof HttpError && error.status === 404) {
      return null;
    }
    throw error;
  }
}

function taskPath({ dagId, runId, taskId }) {
  return path`dags/${dagId}/dagRuns/${runId}/taskInstances/${taskId}`;
}

/** Fetch the task instance; its `state` is null before it is scheduled. */
export function fetchTask(ids) {
  return fetchJson(ids.mapIndex < 0 ? taskPath(ids) : `${taskPath(ids)}/${ids.mapIndex}`);
}

/**
 * Fetch the report that the task instance has published; null if there is none.
 *
 * Airflow's API does not ask an XCom backend for values that it keeps elsewhere. Then `stored` is what the API gives
 * instead, and `report` is the progress, which names no failed rows, or null.
 * `age` is the number of seconds since the XCom was pushed, by Airflow's clock; null if unknown.
 */
export async function fetchReport(ids) {
  const apiPath = `${taskPath(ids)}/xcomEntries/${REPORT_KEY}?map_index=${ids.mapIndex}`;
  let response;
  try {
    response = await request(apiPath);
  } catch (error) {
    if (error instanceof HttpError && error.status === 404) {
      return null;
    }
    throw error;
  }
  const { value, timestamp } = await response.json();
  const seconds = (Date.parse(response.headers.get("date")) - Date.parse(timestamp)) / 1000;
  const age = Number.isNaN(seconds) ? null : seconds;
  const report = parsed(value);
  if (isReport(report)) {
    return { report, stored: null, age };
  }
  const stored = typeof report === "string" ? report : "a value of another kind";
  return { report: await fetchProgress(ids), stored, age };
}

/** Fetch the progress in the task's state store, before Airflow 3.3 in an XCom; null if there is none to read. */
async function fetchProgress(ids) {
  for (const place of ["state-store", "xcomEntries"]) {
    try {
      const entry = await fetchJson(`${taskPath(ids)}/${place}/${PROGRESS_KEY}?map_index=${ids.mapIndex}`);
      const progress = parsed(entry.value);
      if (isReport(progress)) {
        return { failures: [], ...progress };
      }
    } catch (error) {
      if (!(error instanceof HttpError) || error.status === 401) {
        throw error;
      }
    }
  }
  return null;
}

/** An XCom's value; Airflow may give the JSON text of it, or the JSON text of that. */
function parsed(value) {
  try {
    return typeof value === "string" ? parsed(JSON.parse(value)) : value;
  } catch {
    return value;
  }
}

function isReport(value) {
  return typeof value?.state === "string" && typeof value.counts === "object";
}

const PAGE_SIZE = 100;
const MAX_PAGES = 10;

/**
 * Fetch the latest reports that the viewer may see, of all tasks: XCom entries without values, newest first.
 *
 * @param dag a part of the DAG's name; empty: all DAGs.
 * @param isRecent whether an entry is recent enough.
 * @return the entries, at most `count`, and whether there are more.
 */
export async function fetchLatest(count, { dag, isRecent }) {
  const pattern = dag ? `&dag_display_name_pattern=${encodeURIComponent(`%${dag}%`)}` : "";
  const query = `xcom_key=${REPORT_KEY}&order_by=-timestamp${pattern}`;
  const allReports = `dags/~/dagRuns/~/taskInstances/~/xcomEntries?${query}`;
  const newestFirst = (one, other) => Date.parse(other.timestamp) - Date.parse(one.timestamp);
  const found = [];
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const url = `${allReports}&limit=${PAGE_SIZE}&offset=${page * PAGE_SIZE}`;
    const { xcom_entries: entries, total_entries: total } = await fetchJson(url);
    // Airflow 3.1 always sorts by name, so the newest may be on any page.
    const isSorted = entries.every((entry, index) => index === 0 || newestFirst(entries[index - 1], entry) <= 0);
    found.push(...entries.filter((entry) => isRecent(entry) && hasName(entry, dag)));
    const isEnough = isSorted && (found.length > count || !entries.every(isRecent));
    if (isEnough || (page + 1) * PAGE_SIZE >= total) {
      break;
    }
  }
  return { entries: found.sort(newestFirst).slice(0, count), hasMore: found.length > count };
}

/** A pattern of Airflow's takes some characters for others. */
function hasName(entry, part) {
  const names = `${entry.dag_id}\n${entry.dag_display_name ?? ""}`;
  return names.toLowerCase().includes(part.toLowerCase());
}

/** Fetch the DAG that settles events, with its params; null if there is none that the viewer may see. */
export async function fetchSettleDag() {
  const { dags } = await fetchJson(`dags?tags=${SETTLE_TAG}&limit=1`);
  return dags.length ? fetchIfFound(path`dags/${dags[0].dag_id}/details`) : null;
}

/** Trigger a DAG as the viewer, with values for its params; the new run. */
export async function triggerDag(dagId, conf) {
  return (await request(path`dags/${dagId}/dagRuns`, { logical_date: null, conf })).json();
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
  return pageUrl(`${path`dags/${dagId}/runs/${runId}/tasks/${taskId}`}${mapped}/plugin/ropo-report`);
}

/** Escaped as Airflow's own pages do it: with another spelling, they would not mark a tab as the current one. */
function pageUrl(page) {
  return new URL(page.replaceAll("%3A", ":").replaceAll("%2B", "+"), BASE).href;
}

/** The address of a DAG, or of one of its runs, in Airflow's UI. */
export function dagUrl(dagId, runId = null) {
  return pageUrl(runId === null ? path`dags/${dagId}` : path`dags/${dagId}/runs/${runId}`);
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
 * @return a function that refreshes now.
 */
export function poll(refresh) {
  let timer = null;
  let refreshing = false;
  let again = false;

  async function refreshOnce() {
    clearTimeout(timer);
    if (refreshing || document.hidden) {
      again = refreshing;
      return;
    }
    refreshing = true;
    const delay = await refresh().finally(() => {
      refreshing = false;
    });
    if (again) {
      again = false;
      timer = setTimeout(refreshOnce, 0);
    } else if (delay !== null) {
      timer = setTimeout(refreshOnce, delay);
    }
  }

  document.addEventListener("visibilitychange", refreshOnce);
  window.addEventListener("focus", refreshOnce);
  refreshOnce();
  return refreshOnce;
}
