// The filters above the list of runs.

import { make } from "./elements.js";
import { dayOf } from "./words.js";

const STORED_AS = "ropo-one-filters";
const DEFAULTS = { dag: "", since: "", kind: "", open: false };

/** The filters: `element` shows them, `values` holds them; `onChange` is called after each change. */
export function makeFilters(onChange) {
  const values = { ...DEFAULTS, ...stored() };
  const names = make("datalist", { id: "dag-names" });
  const dag = make("input", { type: "search", list: "dag-names", placeholder: "all", autocomplete: "off" });
  const since = make("input", { type: "date" });
  const kinds = [["", "posts and previews"], ["posts", "posts only"], ["previews", "previews only"]];
  const kind = make("select", {}, ...kinds.map(([value, text]) => make("option", { value }, text)));
  const open = make("input", { type: "checkbox" });
  const fields = { dag, since, kind };
  for (const [name, field] of Object.entries(fields)) {
    field.value = values[name];
    field.addEventListener("change", () => set(name, field.value.trim()));
  }
  open.checked = values.open;
  open.addEventListener("change", () => set("open", open.checked));

  function set(name, value) {
    values[name] = value;
    sessionStorage.setItem(STORED_AS, JSON.stringify(values));
    onChange();
  }

  /** Offer the DAGs that have reports. */
  function offer(dagNames) {
    const known = new Set([...names.children].map(({ value }) => value));
    names.append(...dagNames.filter((name) => !known.has(name)).map((value) => make("option", { value })));
  }

  const element = make(
    "form",
    { class: "filters", role: "search", "aria-label": "Filters" },
    make("label", {}, "DAG", dag),
    make("label", {}, "Since", since),
    make("label", {}, "Show", kind),
    make("label", { class: "check" }, open, "Only open"),
    names,
  );
  element.addEventListener("submit", (event) => event.preventDefault());
  return { element, values, offer };
}

function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(STORED_AS)) ?? {};
  } catch {
    return {};
  }
}

/** Whether a report that was published at this time is recent enough. */
export function isRecent({ since }, timestamp) {
  return !since || dayOf(timestamp) >= since;
}

/** Whether a run is to be listed; `open` is what `openEvents` tells of it. */
export function isWanted({ kind, open: onlyOpen }, { report, open }) {
  const isPreview = report?.preview ?? false;
  return (!kind || isPreview === (kind === "previews")) && (!onlyOpen || open.isOpen);
}
